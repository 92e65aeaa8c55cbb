"""Functions in a body of the Responses API: what is declared, what may be called. Other kinds of tools are OpenAI's to
run, and are refused by name."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.errors import Unsupported
from api.tool_use import NAME, Choice, tool_of
from api.wire import Text, Wire
from jobs.tools import Tool, ToolMode

FunctionName = Annotated[str, StringConstraints(pattern=NAME)]


class ResponseTool(Wire):
    """A function. `parameters` is the JSON schema of an object; without it the function takes no arguments."""

    type: Literal["function"]
    name: FunctionName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def tool(self) -> Tool:
        return tool_of(self.name, self.description, self.parameters, bool(self.strict))


class NamedFunction(Wire):
    """This function must be called."""

    type: Literal["function"]
    name: FunctionName

    def choice(self) -> Choice:
        return Choice(ToolMode.REQUIRED, (self.name,))


class AllowedFunctions(Wire):
    """Only these may be called, though all are declared."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1)]

    def choice(self) -> Choice:
        return Choice(ToolMode(self.mode), tuple(tool.name for tool in self.tools))


ResponseToolChoice = (
    Literal["none", "auto", "required"] | Annotated[NamedFunction | AllowedFunctions, Field(discriminator="type")]
)


def choice_of(wire: Literal["none", "auto", "required"] | NamedFunction | AllowedFunctions) -> Choice:
    return Choice(ToolMode(wire)) if isinstance(wire, str) else wire.choice()


def shown_tools(tools: Sequence[ResponseTool]) -> tuple[dict[str, Any], ...]:
    return tuple(tool.model_dump() | {"strict": bool(tool.strict)} for tool in tools)


def shown_choice(wire: Literal["none", "auto", "required"] | NamedFunction | AllowedFunctions) -> Any:
    return wire if isinstance(wire, str) else wire.model_dump()


def refuse_other_tools(body: Mapping[str, Any]) -> None:
    """Raises Unsupported for tools that are no functions."""
    tools = body.get("tools")
    for n, tool in enumerate(tools if isinstance(tools, list) else ()):
        _refuse(tool, f"tools[{n}]")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") != "allowed_tools":
        _refuse(choice, "tool_choice")


def _refuse(tool: Any, param: str) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(kind, str) and kind != "function":
        raise Unsupported(
            param, f"a tool of type {kind[:60]!r}; only functions can be called, and the client runs them"
        )
