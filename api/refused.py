"""What OpenAI's chat API has and this service refuses by name, and the values that it refuses nothing with."""

from collections.abc import Mapping
from typing import Any

from api.errors import Unsupported

_HARMLESS: dict[str, tuple[Any, ...]] = {
    # Asking for what happens anyway changes nothing.
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}

REFUSED: dict[str, str] = {
    "modalities": "answers are text only",
    "functions": "send 'tools'",
    "function_call": "send 'tool_choice'",
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
