"""`expires_after` of a file and `output_expires_after` of a batch: how long a file lives."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from api.errors import ApiError
from api.wire import Wire

SECONDS = (3600, 30 * 86400)


class ExpiresAfter(Wire):
    """From an hour to 30 days after the file was made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SECONDS[0], le=SECONDS[1])]


def lifetime_of(given: Mapping[str, Any]) -> int:
    """Seconds. Raises ApiError."""
    try:
        return ExpiresAfter.model_validate(given).seconds
    except pydantic.ValidationError as exc:
        fault = exc.errors()[0]
        param = ".".join(("expires_after", *map(str, fault["loc"])))
        message = f"Invalid value for {param!r}: {fault['msg']}, got {fault['input']!r:.100}."
        raise ApiError(message, param=param, code="invalid_value") from exc
