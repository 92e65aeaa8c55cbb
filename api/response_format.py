"""`response_format`: what shape an answer must have. A schema that cannot be kept is refused before it is queued."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, StringConstraints

from api.errors import SERVER, ApiError
from api.schema_check import CheckFailed, why_not
from api.wire import Text, Wire
from jobs.request import JsonFormat

SCHEMA_BYTES = 64 << 10
SCHEMA_PARAM = "response_format.json_schema.schema"


class TextFormat(Wire):
    type: Literal["text"]


class JsonObjectFormat(Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Wire):
    """The schema is always kept, whatever `strict` says. `name` and `description` label it; the model sees neither
    them nor the schema: say in the prompt what to fill in."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: Annotated[Text, Field(max_length=4096)] | None = None
    strict: bool | None = None


class JsonSchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


def to_json_format(wire: TextFormat | JsonObjectFormat | JsonSchemaFormat | None) -> JsonFormat | None:
    """Raises ApiError for a schema that the engine would refuse. None: plain text."""
    match wire:
        case JsonObjectFormat():
            return JsonFormat()
        case JsonSchemaFormat():
            return schema_format(wire.json_schema.schema_, SCHEMA_PARAM)
        case _:
            return None


def schema_format(schema: dict[str, Any], param: str) -> JsonFormat:
    """What keeps to the schema that a body has at `param`. Raises ApiError for one that the engine would refuse."""
    text = msgspec.json.encode(schema).decode()
    _check(text, param)
    return JsonFormat(text)


def _check(schema: str, param: str) -> None:
    size = len(schema.encode())
    if size > SCHEMA_BYTES:
        raise _refusal(f"it has {size} bytes as text; at most {SCHEMA_BYTES} are allowed", param)
    try:
        why = why_not(schema)
    except CheckFailed as exc:
        message = f"The schema in {param!r} could not be checked now; try again."
        raise ApiError(message, status=503, kind=SERVER, code="busy", headers={"retry-after": "2"}) from exc
    if why is not None:
        raise _refusal(why, param)


def _refusal(why: str, param: str) -> ApiError:
    return ApiError(f"Invalid schema in {param!r}: {why[:500]}.", param=param, code="invalid_json_schema")
