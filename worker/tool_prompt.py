"""How a family's prompt declares functions and shows earlier calls and their results (docs/adr/0014).

Formats: the chat template of Qwen2.5-Instruct (`tokenizer_config.json`); InternLM's `chat/chat_format.md`, which
InternLM2.5 and InternLM3 share. Clients' text becomes plain text, whatever stands in it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.tools import Marks, Tool, ToolCall, ToolFormat, ToolUse
from worker.prompt_pieces import Mark, Piece, Text, Turn

_QWEN_BEFORE = (
    "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_QWEN_AFTER = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
_QWEN_EXAMPLE = '\n{"name": <function-name>, "arguments": <args-json-object>}\n'
_PLUGIN = "<|plugin|>"


def declaring(turns: Sequence[Turn], use: ToolUse) -> list[Turn]:
    """`turns` begin with the system's. All declared functions are shown, so that allowing only some of them leaves
    the prompt as it is; none when nothing may be called."""
    if not use.callable:
        return list(turns)
    if use.format is ToolFormat.INTERNLM:
        listed = json.dumps([_signature(tool) for tool in use.tools], ensure_ascii=False)
        plugin = Turn((Text("system name="), Mark(_PLUGIN)), (Text(listed),))
        return [turns[0], plugin, *turns[1:]]
    marks = use.format.marks
    lines = (json.dumps({"type": "function", "function": _signature(tool)}, ensure_ascii=False) for tool in use.tools)
    declared: tuple[Piece, ...] = (
        Text(_QWEN_BEFORE + "\n".join(lines) + _QWEN_AFTER),
        *(Mark(marks.opening), Mark(marks.closing), Text(" XML tags:\n")),
        *(Mark(marks.opening), Text(_QWEN_EXAMPLE), Mark(marks.closing)),
    )
    return [Turn(turns[0].head, (*turns[0].body, *declared)), *turns[1:]]


def with_calls(body: Sequence[Piece], calls: Iterable[ToolCall], format: ToolFormat) -> tuple[Piece, ...]:
    """An assistant's text, then what it called, as the model would have written it."""
    marks = format.marks
    text = [piece for piece in body if piece != Text("")]
    pieces: list[Piece] = list(text)
    for n, call in enumerate(calls):
        if n or text:
            pieces.append(Text(marks.between))
        pieces += _call(call, marks)
    return tuple(pieces)


def responses(bodies: Sequence[Sequence[Piece]], format: ToolFormat) -> list[Turn]:
    """The results of one turn's calls, in the order of the calls."""
    if format is ToolFormat.INTERNLM:
        return [Turn((Text("environment name="), Mark(_PLUGIN)), tuple(body)) for body in bodies]
    pieces: list[Piece] = []
    for n, body in enumerate(bodies):
        pieces += [Text("\n" * (n > 0) + "<tool_response>\n"), *body, Text("\n</tool_response>")]
    return [Turn((Text("user"),), tuple(pieces))]


def _call(call: ToolCall, marks: Marks) -> list[Piece]:
    """The arguments stay as the model wrote them: so the turn is what is in the cache already."""
    written = f'\n{{"name": {json.dumps(call.name)}, "{marks.arguments}": {call.arguments}}}{marks.gap}'
    return [*_marks(marks.opening), Text(written), *_marks(marks.closing)]


def _marks(text: str) -> list[Piece]:
    """A mark may be several tokens."""
    return [Mark(token) for token in re.findall(r"<[^>]*>", text)]


def _signature(tool: Tool) -> dict[str, Any]:
    signature: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        signature["description"] = tool.description
    if tool.parameters is not None:
        signature["parameters"] = json.loads(tool.parameters)
    return signature
