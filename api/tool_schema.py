"""Tools in a body of chat messages: what is declared, what may be called, what was called and what came of it."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.tool_use import NAME, Choice, tool_of
from api.wire import Text, Wire
from jobs.tools import Tool, ToolMode

FunctionName = Annotated[str, StringConstraints(pattern=NAME)]


class FunctionDefinition(Wire):
    """`parameters` is the JSON schema of an object; without it the function takes no arguments. `strict`: the
    schema must be one that can be kept, and every call keeps it; without it only required calls do."""

    name: FunctionName
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Wire):
    type: Literal["function"]
    function: FunctionDefinition

    def tool(self) -> Tool:
        function = self.function
        return tool_of(function.name, function.description, function.parameters, bool(function.strict))


class FunctionNamed(Wire):
    name: FunctionName


class FunctionChoice(Wire):
    """This function must be called."""

    type: Literal["function"]
    function: FunctionNamed

    def choice(self) -> Choice:
        return Choice(ToolMode.REQUIRED, (self.function.name,))


class AllowedTools(Wire):
    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Field(min_length=1)]


class AllowedToolsChoice(Wire):
    """Only these may be called, though all are declared."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools

    def choice(self) -> Choice:
        allowed = self.allowed_tools
        return Choice(ToolMode(allowed.mode), tuple(tool.function.name for tool in allowed.tools))


ChosenTools = Annotated[FunctionChoice | AllowedToolsChoice, Field(discriminator="type")]
ToolChoice = Literal["none", "auto", "required"] | ChosenTools


def choice_of(wire: Literal["none", "auto", "required"] | FunctionChoice | AllowedToolsChoice | None) -> Choice:
    if wire is None:
        return Choice()
    return Choice(ToolMode(wire)) if isinstance(wire, str) else wire.choice()


class CalledFunction(Wire):
    """`arguments` is JSON text, as the call had it."""

    name: FunctionName
    arguments: Text


class CalledTool(Wire):
    id: Annotated[Text, StringConstraints(min_length=1, max_length=64)]
    type: Literal["function"]
    function: CalledFunction
