"""What a request lets its answer be, as a grammar: JSON, calls of functions, or either."""

import json
import re
from collections.abc import Callable
from typing import Any

from jobs.request import ChatRequest, JsonFormat
from jobs.tools import Marks, Tool, ToolMode, ToolUse
from worker.engine.generation import Grammar, GrammarKind
from worker.engine.json_rules import inline

MAX_CALLS = 16
"""In one answer that a grammar keeps: some models would never stop calling."""

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def grammar_of(request: ChatRequest, is_token: Callable[[str], bool]) -> Grammar | None:
    """None: free text, in which calls may stand. `is_token` says whether the checkpoint has a mark as a token."""
    use = request.tools
    if use is None or not request.guarded:
        return _json(request.json_format)
    calls = _calls(use, is_token)
    if use.mode is ToolMode.REQUIRED or request.json_format is None:
        return Grammar(GrammarKind.LARK, rules=f"start: calls\n{calls}")
    schema = json.loads(request.json_format.schema or '{"type":"object"}')
    return Grammar(GrammarKind.LARK, rules=f"start: calls | answer\nanswer: {inline(schema)}\n{calls}")


def _json(asked: JsonFormat | None) -> Grammar | None:
    if asked is None:
        return None
    if asked.schema is None:
        return Grammar(GrammarKind.JSON_OBJECT)
    return Grammar(GrammarKind.JSON_SCHEMA, asked.schema)


def _calls(use: ToolUse, is_token: Callable[[str], bool]) -> str:
    """One call, or several where they are allowed, each of a callable function with arguments that it takes."""
    marks = use.format.marks
    more = "" if use.single else f" ({_literal(marks.between)} call){{0,{MAX_CALLS - 1}}}"
    names = " | ".join(f"call_{n}" for n in range(len(use.callable)))
    rules = [
        f"calls: call{more}",
        f"call: {_mark(marks.opening, is_token)} {_literal(_HEAD)} ({names}) {_literal('}' + marks.gap)} "
        f"{_mark(marks.closing, is_token)}",
    ]
    for n, tool in enumerate(use.callable):
        rules.append(f"call_{n}: {_literal(_between(tool, marks))} arguments_{n}")
        rules.append(f"arguments_{n}: {inline(_schema(tool))}")
    return "\n".join(rules) + "\n"


_HEAD = '\n{"name": "'


def _between(tool: Tool, marks: Marks) -> str:
    return f'{tool.name}", "{marks.arguments}": '


def _schema(tool: Tool) -> dict[str, Any]:
    if tool.parameters is None:
        return _NO_ARGUMENTS
    return {"type": "object", **json.loads(tool.parameters)}


def _mark(text: str, is_token: Callable[[str], bool]) -> str:
    """A mark may be several tokens; those that the checkpoint has are named, the others spelled."""
    return " ".join(part if is_token(part) else _literal(part) for part in re.findall(r"<[^>]*>", text))


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""
