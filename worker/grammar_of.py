"""What a request lets its answer be, as a grammar: JSON, calls of functions, either, or text with calls in it."""

import json
from collections.abc import Callable

from jobs.request import ChatRequest, JsonFormat
from jobs.tools import ToolMode, ToolUse
from worker.call_rules import MAX_CALLS, call_rules, first_mark
from worker.engine.generation import Grammar, GrammarKind
from worker.engine.json_rules import inline


def grammar_of(request: ChatRequest, is_token: Callable[[str], bool]) -> Grammar | None:
    """None: free text, in which calls may stand. `is_token` says whether the checkpoint has a mark as a token."""
    use = request.tools
    if use is None or not request.guarded:
        return _json(request.json_format)
    if request.wakes:
        opened = is_token(first_mark(use))
        calls = call_rules(use, is_token, strict_only=True, opened=not opened)
        return Grammar(GrammarKind.LARK, rules=_free(use, opened) + calls)
    calls = call_rules(use, is_token)
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


_ANY = "(?s:.)"


def _free(use: ToolUse, token: bool) -> str:
    """Text, and calls anywhere in it; where only one may come, it is the end. Text itself never spells the mark that
    calls begin with, because who reads the answer would see a call. `token`: the mark's first part is one."""
    mark = _pattern(use.format.marks.opening if token else first_mark(use))
    text = f"TEXT: /{_ANY}+/ & ~/{_ANY}*{mark}{_ANY}*/\n"
    lead = "TEXT?"
    if not token:
        # A mark in letters ends the lexeme of the text before it: text alone could not know where to end.
        lead = "UNTIL"
        text += f"UNTIL: /{_ANY}*{mark}/ & ~/{_ANY}*{mark}{_ANY}+/\n"
    start = f"{lead} call | TEXT?" if use.single else f"({lead} call){{0,{MAX_CALLS}}} TEXT?"
    return f"start: {start}\n{text}"


def _pattern(mark: str) -> str:
    """As a part of a regular expression: of what marks are written with, these two mean something in one."""
    return mark.replace("|", r"\|").replace("/", r"\/")
