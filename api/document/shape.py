"""What the document says of an answer that its route renders by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Shown(BaseModel):
    """Base of such answers' models: they have these keys, and no others."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Shape:
    """`model`: of the JSON, if it can be JSON. `others`: further content types. `never`: what FastAPI assumed."""

    model: type[BaseModel] | None = None
    description: str = ""
    others: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


Shapes = Mapping[str, Mapping[int, Shape]]
"""By operation (`POST /v1/jobs`) and status."""
EVENT_STREAM = "text/event-stream"
STREAM = (EVENT_STREAM,)
EVENT: dict[str, Any] = {
    "type": "object",
    "description": "One event of the stream; its `data` is JSON.",
    "required": ["data"],
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
}
"""Before OpenAPI 3.2 the schema of such an answer is that of each event."""


def text_of(kind: str) -> dict[str, Any]:
    """The schema of an answer that is not JSON."""
    return EVENT if kind == EVENT_STREAM else {"type": "string"}
