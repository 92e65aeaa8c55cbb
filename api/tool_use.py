"""From the tools that a body declares to those of a job, checked; and that calls and results in a conversation agree.

Shared by the doors, whose own shapes of tools and choices are translated before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from api.errors import ApiError, Unsupported
from api.response_format import schema_format
from jobs.request import ChatRequest, Message, Role
from jobs.tools import Tool, ToolFormat, ToolMode, ToolUse

NAME = r"^[a-zA-Z0-9_-]{1,64}$"


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """`formats` are those of the served models that can call; `max_bytes` bounds names, descriptions and schemas of a
    request together."""

    formats: Mapping[str, ToolFormat]
    max_tools: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What the client lets the model do. `only`: names of the tools that it may call; empty: all."""

    mode: ToolMode = ToolMode.AUTO
    only: tuple[str, ...] = ()


def tool_of(name: str, description: str | None, parameters: Mapping[str, Any] | None, strict: bool) -> Tool:
    text = None if parameters is None else msgspec.json.encode(parameters).decode()
    return Tool(name, description, text, strict)


def use_of(
    model: str,
    tools: Sequence[Tool],
    choice: Choice,
    parallel: bool,
    history: bool,
    limits: ToolLimits,
    param: str = "tools",
) -> ToolUse | None:
    """None for a conversation without tools and, as `history` says, without earlier calls. Raises Unsupported for a
    model that cannot call, ApiError for too many or too long tools and for names that do not fit together."""
    if not tools and not history:
        return None
    if model not in limits.formats:
        can = ", ".join(sorted(limits.formats)) or "none"
        raise Unsupported(param, f"the model {model!r} has no format for calls of functions; those that have: {can}")
    _check(tools, choice, limits, param)
    mode = choice.mode if tools else ToolMode.NONE
    return ToolUse(limits.formats[model], tuple(tools), mode, choice.only, parallel)


def check_guarded(request: ChatRequest, params: Sequence[str]) -> None:
    """Of the schemas that calls must keep: `params` names the place of each tool's. Raises ApiError for one that
    cannot be kept, or for fields that cannot go with a call that must come."""
    use = request.tools
    if use is None:
        return
    for tool, param in zip(use.tools, params, strict=True):
        if tool.parameters is None:
            continue
        kind = msgspec.json.decode(tool.parameters).get("type", "object")
        if kind != "object":
            message = f"Invalid schema in {param!r}: arguments are an object, but its 'type' is {kind!r:.100}."
            raise ApiError(message, param=param, code="invalid_function_parameters")
        if tool.strict or (request.guarded and not request.wakes and tool in use.callable):
            schema_format(msgspec.json.decode(tool.parameters), param)
    if not request.guarded:
        return
    # Text beside calls may be stopped as text is; a stop string that ends a call leaves its beginning.
    stop = () if request.wakes else request.stop
    fields = {"stop": stop, "min_tokens": request.min_tokens, "ignore_eos": request.ignore_eos}
    for field, given in fields.items():
        if given:
            message = f"{field!r} cannot go with calls that a grammar keeps, which decides where the end is."
            raise ApiError(message, param=field, code="invalid_value")


def with_results_in_order(messages: Sequence[Message], params: Sequence[str]) -> tuple[Message, ...]:
    """Each turn of calls with its results behind it in the order of the calls: the models know calls by their places,
    not by ids. `params` names the place of each message. Raises ApiError for a result without its call or a call
    without its result."""
    ordered: list[Message] = []
    place = 0
    while place < len(messages):
        message = messages[place]
        if message.role is Role.TOOL:
            raise _lost(f"answers the call {message.call_id!r:.100}, which is not made before it", params[place])
        results = _results_behind(messages, place, params)
        ordered += [message, *(results[call.id] for call in message.calls)]
        place += 1 + len(results)
    return tuple(ordered)


def _results_behind(messages: Sequence[Message], place: int, params: Sequence[str]) -> dict[str, Message]:
    calls = {call.id for call in messages[place].calls}
    if len(calls) < len(messages[place].calls):
        raise _lost("makes two calls with one id", params[place])
    results: dict[str, Message] = {}
    for at in range(place + 1, len(messages)):
        message = messages[at]
        if message.role is not Role.TOOL or not calls:
            break
        if message.call_id not in calls or message.call_id in results:
            raise _lost(f"answers the call {message.call_id!r:.100}, which is not open", params[at])
        results[message.call_id] = message
    if missing := [call.id for call in messages[place].calls if call.id not in results]:
        raise _lost(f"makes the call {missing[0]!r:.100}, which no message behind it answers", params[place])
    return results


def _check(tools: Sequence[Tool], choice: Choice, limits: ToolLimits, param: str) -> None:
    if len(tools) > limits.max_tools:
        raise _wrong(f"'{param}' has {len(tools)} entries; at most {limits.max_tools} are allowed", param)
    size = sum(len(text.encode()) for tool in tools for text in (tool.name, tool.description, tool.parameters) if text)
    if size > limits.max_bytes:
        raise _wrong(f"'{param}' have {size} bytes as text; at most {limits.max_bytes} are allowed", param)
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise _wrong(f"'{param}' has the function {twice!r} twice", param)
    if unknown := next((name for name in choice.only if name not in names), None):
        raise _wrong(f"'tool_choice' names the function {unknown!r:.100}, which is not among 'tools'", "tool_choice")


def _wrong(message: str, param: str) -> ApiError:
    return ApiError(f"{message}.", param=param, code="invalid_value")


def _lost(what: str, param: str) -> ApiError:
    return ApiError(f"The message at {param!r} {what}.", param=param, code="invalid_value")
