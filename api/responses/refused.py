"""What OpenAI's Responses API has and this service refuses by name, and the values that it refuses nothing with."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.errors import ApiError, Unsupported

# Asking for what happens anyway changes nothing.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "service_tier": ("auto", "default"),
    "truncation": ("disabled",),
    "reasoning": ({}, {"effort": "none"}, {"effort": None}, {"effort": None, "summary": None}),
    "background_options": ({}, {"completion_window": "soonest"}),
    "image": ({"context_compression": "disabled"},),
    "context_management": ([],),
}

REFUSED: dict[str, str] = {
    "conversation": "there are no conversation objects; use 'previous_response_id'",
    "prompt": "there are no prompt templates; send 'instructions' and 'input'",
    "reasoning": "the model has no reasoning mode",
    "max_tool_calls": "there are no built-in tools; calls of functions are the client's to make",
    "service_tier": "only 'auto' and 'default' exist; use 'priority' to choose a lane",
    "truncation": "only 'disabled': a prompt longer than the context fails, and nothing is dropped from it",
    "moderation": "there is no moderation",
    "moderation_policy": "there is no moderation",
    "prompt_cache_key": "equal prefixes are reused without a key",
    "prompt_cache_options": "equal prefixes are reused without options",
    "prompt_cache_retention": "equal prefixes are reused while the cache has room",
    "context_management": "nothing is compacted; a prompt longer than the context fails",
    "background_options": "every background response starts as soon as it can; use 'priority' and 'deadline'",
    "access_programs": "there are none",
    "image": "pictures of earlier turns are kept as they were",
    "personality": "say in 'instructions' how the model should speak",
}

LOGPROBS = "message.output_text.logprobs"
IMAGE_URL = "message.input_image.image_url"

_NOT_INCLUDED: dict[str, str] = {
    "file_search_call.results": "the model searches no files",
    "web_search_call.results": "the model does not search",
    "web_search_call.action.sources": "the model does not search",
    "computer_call_output.output.image_url": "the model uses no computer",
    "code_interpreter_call.outputs": "the model runs no code",
    "reasoning.encrypted_content": "the model has no reasoning mode",
    LOGPROBS: "there are none here; ask for them when you create the response",
    IMAGE_URL: "there are none here; ask for them where you list the response's input items",
}

_ITEMS: dict[str, str] = {
    "item_reference": "send the item itself, or 'previous_response_id'",
    "reasoning": "the model has no reasoning mode",
}

_PARTS: dict[str, str] = {
    "input_audio": "the model does not hear",
    "summary_text": "the model has no reasoning mode",
}


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """Raises Unsupported for the first refused field, item or part whose value asks for something. null is as good as
    absent."""
    for field, why in REFUSED.items():
        value = body.get(field)
        if value is not None and value not in _HARMLESS.get(field, ()):
            raise Unsupported(field, why)
    text = body.get("text")
    if isinstance(text, dict) and text.get("verbosity") not in (None, "medium"):
        raise Unsupported("text.verbosity", "say in 'instructions' how long the answer should be")
    _refuse_items(body.get("input"))
    include = body.get("include")
    if isinstance(include, list):
        check_includes([value for value in include if isinstance(value, str)], LOGPROBS)


def supported(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without the refused fields (harmless by now) and without nulls."""
    return {key: value for key, value in body.items() if value is not None and key not in REFUSED}


def check_includes(include: Sequence[str], *known: str) -> None:
    """Raises ApiError for what cannot be included here; Unsupported when it is OpenAI's."""
    for value in include:
        if value in known:
            continue
        if (why := _NOT_INCLUDED.get(value)) is not None:
            raise Unsupported("include", f"{value!r}: {why}")
        named = " or ".join(repr(name) for name in known)
        message = f"Invalid value for 'include': must be {named}, got {value[:100]!r}."
        raise ApiError(message, param="include", code="invalid_value")


def _refuse_items(items: Any) -> None:
    if not isinstance(items, list):
        return
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if isinstance(kind, str) and (why := _ITEMS.get(kind)) is not None:
            raise Unsupported(f"input[{i}]", f"an item of type {kind!r}: {why}")
        content = item.get("content")
        for p, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                _refuse_part(part, f"input[{i}].content[{p}]")


def _refuse_part(part: Mapping[str, Any], param: str) -> None:
    kind = part.get("type")
    if isinstance(kind, str) and (why := _PARTS.get(kind)) is not None:
        raise Unsupported(param, f"a part of type {kind!r}: {why}")
    for field in ("file_data", "file_url", "filename") if kind == "input_file" else ():
        if part.get(field) is not None:
            raise Unsupported(f"{param}.{field}", "upload the file and send its 'file_id', or use 'input_image'")
    if part.get("detail") == "original":
        raise Unsupported(f"{param}.detail", "pictures are tiled as the model was trained; 'high' keeps most of one")
    if part.get("prompt_cache_breakpoint") is not None:
        raise Unsupported(f"{param}.prompt_cache_breakpoint", "equal prefixes are reused without marks")
