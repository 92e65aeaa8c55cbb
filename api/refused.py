"""What OpenAI's chat API has and this service refuses by name, and the values that it refuses nothing with."""

from collections.abc import Mapping
from typing import Any

from api.errors import Unsupported

_HARMLESS: dict[str, tuple[Any, ...]] = {
    # Asking for what happens anyway changes nothing. `store: false`: there are no stored completions here; the job's
    # row lives until its retention ends, whichever way it was asked for.
    "modalities": (["text"],),
    "tool_choice": ("none",),
    "store": (False,),
    "service_tier": ("auto", "default"),
}

REFUSED: dict[str, str] = {
    "modalities": "answers are text only",
    "tools": "the model calls no tools",
    "tool_choice": "the model calls no tools",
    "parallel_tool_calls": "the model calls no tools",
    "functions": "the model calls no functions",
    "function_call": "the model calls no functions",
    "store": "there are no stored completions; use POST /v1/jobs and read the job by its id",
    "service_tier": "only 'auto' and 'default' exist; use 'priority' to choose a lane",
    "audio": "the model neither hears nor speaks",
    "prediction": "predicted outputs are not used",
    "reasoning_effort": "the model has no reasoning mode",
    "verbosity": "say in the prompt how long the answer should be",
    "web_search_options": "the model does not search",
    "moderation": "there is no moderation",
    "prompt_cache_key": "equal prefixes are reused without a key",
    "prompt_cache_options": "equal prefixes are reused without options",
    "prompt_cache_retention": "equal prefixes are reused while the cache has room",
    "webhook": "poll the job or follow its events",
}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Raises Unsupported for the first refused field whose value asks for something. null is as good as absent."""
    for field, why in REFUSED.items():
        value = body.get(field)
        if value is not None and value not in _HARMLESS.get(field, ()):
            raise Unsupported(field, why)


def supported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the refused fields (harmless by now) and without nulls."""
    return {key: value for key, value in body.items() if value is not None and key not in REFUSED}
