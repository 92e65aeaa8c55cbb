"""The lines of a batch's input: cut from the file one by one, and what stands around each body checked.

Whatever is wrong here fails the whole batch (docs/adr/0012); bodies are looked at as far as their model, no further.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from jobs.batches import Endpoint, LineFault

MAX_CUSTOM_ID_CHARS = 512
KEYS = ("custom_id", "method", "url", "body")

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class RawLine:
    """`end` is the byte behind it; numbers count from 1, empty lines too."""

    number: int
    end: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Line:
    """`body` is JSON that is known to be an object."""

    number: int
    custom_id: str
    model: str
    body: bytes


class Faulty(Exception):
    """A line that fails its batch."""

    def __init__(self, fault: LineFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def raw_lines(file: BinaryIO, number: int, begin: int, max_bytes: int) -> Iterator[RawLine]:
    """Those that are not empty, from line `number` at byte `begin` on. Raises Faulty for one that is too long."""
    file.seek(begin)
    while data := file.readline(max_bytes + 1):
        if len(data) > max_bytes:
            raise Faulty(LineFault("line_too_long", f"This line is longer than {max_bytes} bytes.", number))
        begin += len(data)
        if data.strip():
            yield RawLine(number, begin, data)
        number += 1


def read_line(raw: RawLine, endpoint: Endpoint) -> Line:
    """Raises Faulty."""
    data = raw.data.removeprefix(b"\xef\xbb\xbf") if raw.number == 1 else raw.data
    try:
        data.decode()
        fields = _object.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        message = f"This line is not parseable as a JSON object: {str(exc) or 'it is nested too deeply'}."
        raise Faulty(LineFault("invalid_json_line", message, raw.number)) from exc
    if unknown := sorted(fields.keys() - set(KEYS)):
        raise _fault(raw, "unknown_parameter", unknown[0][:100], "is not known; a line has " + ", ".join(KEYS))
    custom_id = _text(raw, fields, "custom_id")
    if not 1 <= len(custom_id) <= MAX_CUSTOM_ID_CHARS:
        raise _fault(raw, "invalid_custom_id", "custom_id", f"must have 1 to {MAX_CUSTOM_ID_CHARS} characters")
    if (method := _text(raw, fields, "method")) != "POST":
        raise _fault(raw, "invalid_method", "method", f"must be 'POST', got {method[:40]!r}")
    if (url := _text(raw, fields, "url")) != endpoint:
        raise _fault(raw, "invalid_url", "url", f"must be the batch's endpoint {endpoint.value!r}, got {url[:100]!r}")
    return Line(raw.number, custom_id, _model(raw, fields), bytes(fields["body"]))


def custom_id_of(raw: RawLine) -> str:
    """Of a line that was found right before."""
    return _string.decode(_object.decode(raw.data.removeprefix(b"\xef\xbb\xbf"))["custom_id"])


def _model(raw: RawLine, fields: dict[str, msgspec.Raw]) -> str:
    if "body" not in fields:
        raise _fault(raw, "missing_required_parameter", "body", "is missing")
    try:
        body = _object.decode(fields["body"])
    except msgspec.DecodeError:
        raise _fault(raw, "invalid_type", "body", "must be an object") from None
    return _text(raw, body, "model", "body.model")


def _text(raw: RawLine, fields: dict[str, msgspec.Raw], name: str, param: str = "") -> str:
    if name not in fields:
        raise _fault(raw, "missing_required_parameter", param or name, "is missing")
    try:
        return _string.decode(fields[name])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _fault(raw, "invalid_type", param or name, "must be a string") from None


def _fault(raw: RawLine, code: str, param: str, what: str) -> Faulty:
    return Faulty(LineFault(code, f"{param!r} {what}.", raw.number, param))
