"""Calls of functions as rules of a grammar (llguidance's Lark), in the manner of a family of models."""

import json
import re
from collections.abc import Callable
from typing import Any

from jobs.tools import Marks, Tool, ToolUse
from worker.engine.json_rules import inline

MAX_CALLS = 16
"""In one answer that a grammar keeps: some models would never stop calling."""

_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
_ANY_ARGUMENTS = {"type": "object"}
_PART = re.compile(r"<[^>]*>")


def call_rules(use: ToolUse, is_token: Callable[[str], bool], strict_only: bool = False, opened: bool = False) -> str:
    """`call`, and `calls`: one, or several where they are allowed, each of a callable function with arguments that it
    takes; with `strict_only` those of functions that are not strict are any object. `opened`: the first part of the
    opening mark stands before the rule."""
    marks = use.format.marks
    more = "" if use.single else f" ({_literal(marks.between)} call){{0,{MAX_CALLS - 1}}}"
    names = " | ".join(f"call_{n}" for n in range(len(use.callable)))
    opening = marks.opening.removeprefix(first_mark(use)) if opened else marks.opening
    rules = [
        f"calls: call{more}",
        f"call: {_mark(opening, is_token)} {_literal(_HEAD)} ({names}) {_literal('}' + marks.gap)} "
        f"{_mark(marks.closing, is_token)}",
    ]
    for n, tool in enumerate(use.callable):
        schema = _ANY_ARGUMENTS if strict_only and not tool.strict and tool.parameters is not None else _schema(tool)
        rules.append(f"call_{n}: {_literal(_between(tool, marks))} arguments_{n}")
        rules.append(f"arguments_{n}: {inline(schema)}")
    return "\n".join(rules) + "\n"


def first_mark(use: ToolUse) -> str:
    """The first part of what a call begins with."""
    return use.format.marks.opening.partition(">")[0] + ">"


_HEAD = '\n{"name": "'


def _between(tool: Tool, marks: Marks) -> str:
    return f'{tool.name}", "{marks.arguments}": '


def _schema(tool: Tool) -> dict[str, Any]:
    if tool.parameters is None:
        return _NO_ARGUMENTS
    return {"type": "object", **json.loads(tool.parameters)}


def _mark(text: str, is_token: Callable[[str], bool]) -> str:
    """A mark may be several tokens; those that the checkpoint has are named, the others spelled."""
    return " ".join(part if is_token(part) else _literal(part) for part in _PART.findall(text))


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""
