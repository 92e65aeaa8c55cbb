"""The first fault of a body as an error that names the field, its value and what it may be. Knows no fields."""

from typing import Any

import pydantic

from api.errors import ApiError

MAX_PARAM_CHARS = 200
_TAGS = {"union_tag_not_found": "missing"}
_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}


def first_fault(exc: pydantic.ValidationError, body: dict[str, Any]) -> ApiError:
    """Of pydantic's faults the one that explains most, with its place in `body`."""
    # An unknown name explains more than a fault of a known one.
    faults = exc.errors(include_url=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")
    param = _path(fault["loc"], body, kind != "value_error") or _quoted(message)
    if kind.startswith("union_tag_"):
        # Which of several shapes it is, a field says: the fault is that field's.
        field = fault["ctx"]["discriminator"].strip("'")
        param, kind = f"{param}.{field}", _TAGS.get(kind, kind)
    param = param[:MAX_PARAM_CHARS]
    if kind == "extra_forbidden":
        text = f"Unrecognized request argument supplied: {param!r}."
    elif kind == "missing":
        text = f"Missing required parameter: {param!r}."
    elif not fault["loc"]:
        text = f"{message}."
    else:
        text = f"Invalid value for {param!r}: {message}, got {_short(fault['input'])}."
    code = _CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return ApiError(text, param=param or None, code=code)


def _short(value: Any) -> str:
    # What holds other values may be deep and long: its kind says enough.
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value[:100]) if isinstance(value, str) else repr(value)[:100]


def _quoted(message: str) -> str:
    return message.split("'")[1] if message.startswith("'") else ""


def _has(here: Any, step: int | str) -> bool:
    if isinstance(here, list):
        return isinstance(step, int) and step < len(here)
    return isinstance(here, dict) and step in here


def _path(loc: tuple[int | str, ...], body: Any, missing: bool = True) -> str:
    """`messages[0].content[1].image_url.url`: the place in the body, without pydantic's names of union members.
    `missing`: the last step may be the name of a field that is not there."""
    path, here = "", body
    for step in loc:
        if _has(here, step):
            here = here[step]
        elif not (missing and step is loc[-1] and isinstance(here, dict)):
            continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path.removeprefix(".")
