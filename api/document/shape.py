"""What the document says of an answer that its route renders by hand."""

from collections.abc import Mapping
from dataclasses import dataclass

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
STREAM = ("text/event-stream",)
