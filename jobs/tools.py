"""Function tools as values: what a request declares, what a model may do with it, and what it called.

And how each family of models writes a call (docs/adr/0014): between an opening and a closing mark, an object with the
function's name and its arguments. Renders no prompt and parses no answer.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class ToolFormat(StrEnum):
    """A family's manner: `qwen` is that of Qwen2.5 (Hermes), `internlm` that of InternLM2.5 and InternLM3."""

    QWEN = "qwen"
    INTERNLM = "internlm"

    @property
    def marks(self) -> "Marks":
        return _MARKS[self]


@dataclass(frozen=True, slots=True)
class Marks:
    """A call is `opening`, a line break, the object, `gap`, `closing`; several stand `between` apart. `tokens` are the
    parts that a tokenizer may have as added tokens; `arguments` is the key of the arguments in the object."""

    opening: str
    closing: str
    gap: str
    between: str
    arguments: str
    tokens: tuple[str, ...]


_MARKS = {
    ToolFormat.QWEN: Marks(
        *("<tool_call>", "</tool_call>"),
        gap="\n",
        between="\n",
        arguments="arguments",
        tokens=("<tool_call>", "</tool_call>"),
    ),
    ToolFormat.INTERNLM: Marks(
        *("<|action_start|><|plugin|>", "<|action_end|>"),
        gap="",
        between="",
        arguments="parameters",
        tokens=("<|action_start|>", "<|plugin|>", "<|action_end|>"),
    ),
}


class Tool(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A function. `parameters` is the text of a JSON schema of an object; None: the client gave none. `strict`: a call
    of it always keeps the schema."""

    name: str
    description: str | None = None
    parameters: str | None = None
    strict: bool = False


class ToolMode(StrEnum):
    """NONE: the model is told of no tool, and what it says is text. AUTO: it may call. REQUIRED: it must."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"


class ToolUse(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A request's tools. `only`: the names of those that may be called; empty: all. `parallel`: several calls in one
    answer are allowed."""

    format: ToolFormat
    tools: tuple[Tool, ...] = ()
    mode: ToolMode = ToolMode.AUTO
    only: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Those that the model may call; none when the mode is NONE."""
        if self.mode is ToolMode.NONE:
            return ()
        return tuple(tool for tool in self.tools if not self.only or tool.name in self.only)

    @property
    def single(self) -> bool:
        """Whether at most one call is asked for: it is when the client has named the function to call."""
        return not self.parallel or (self.mode is ToolMode.REQUIRED and len(self.only) == 1)

    @property
    def bound(self) -> bool:
        """Whether calls cannot be left to the model: one of a function keeps its schema, or only one may come."""
        return not self.parallel or any(tool.strict for tool in self.callable)

    @property
    def shown(self) -> tuple[str, ...]:
        """Tokens that an answer shows by their names, because calls stand between them."""
        return self.format.marks.tokens if self.callable else ()


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model called in an earlier turn. `arguments` is the text of a JSON object."""

    id: str
    name: str
    arguments: str
