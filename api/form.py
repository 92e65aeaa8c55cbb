"""A body of `multipart/form-data` as it comes: fields into memory, its one file onto the disk. Knows no field."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.errors import ApiError
from api.sse import ClientGone
from api.threads import Threads
from jobs.errors import BlobsUnavailable

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096
MAX_FILENAME_CHARS = 255
PIECE_BYTES = 2**20


class Form:
    """What has come so far. `file` is on the disk, in a file without a name that is gone with `close`."""

    def __init__(self, boundary: bytes, max_file_bytes: int, folder: str) -> None:
        self._max_file_bytes = max_file_bytes
        self._folder = folder
        self._fields: dict[str, bytearray] = {}
        self._file: BinaryIO | None = None
        self.filename = ""
        self.file_bytes = 0
        self._name = ""
        self._in_file = False
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part,
                "on_part_data": self._on_data,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_end": self._on_end,
            },
        )

    @property
    def fields(self) -> Mapping[str, str]:
        """Raises ApiError for what is no text."""
        return {name: _text(bytes(value), name) for name, value in self._fields.items()}

    @property
    def file(self) -> BinaryIO:
        """Raises ApiError when the form has none."""
        if self._file is None:
            message = "Missing required parameter: 'file', as a part with a filename."
            raise ApiError(message, param="file", code="missing_required_parameter")
        return self._file

    def feed(self, data: bytes) -> None:
        """Raises ApiError for what is no form or is too long, BlobsUnavailable for a disk that is full."""
        with _errors_as_ours():
            self._parser.write(data)

    def end(self) -> None:
        with _errors_as_ours():
            self._parser.finalize()
        if not self._ended:
            raise _malformed("it ends before its last boundary")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _on_part(self) -> None:
        self._disposition = b""

    def _on_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = [bytearray(), bytearray()]
        if name.lower() == b"content-disposition":
            self._disposition = value
        elif name.lower() == b"content-transfer-encoding" and value.lower() not in (b"binary", b"8bit", b"7bit"):
            raise _malformed(f"the content-transfer-encoding {value[:40]!r} is not understood")

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _malformed("a part has no name")
        self._name = _text(options[b"name"], "name of a part")
        self._in_file = b"filename" in options
        if self._in_file:
            self._begin_file(_text(options[b"filename"], "filename"))
        elif self._name in self._fields or len(self._fields) == MAX_FIELDS:
            message = f"The form has the field {self._name[:100]!r} twice, or more than {MAX_FIELDS} fields."
            raise ApiError(message, param=self._name[:100], code="invalid_value")
        else:
            self._fields[self._name] = bytearray()

    def _begin_file(self, filename: str) -> None:
        if self._name != "file":
            raise ApiError(
                f"Unknown parameter: {self._name[:100]!r} is a file; only 'file' may be one.",
                param=self._name[:100],
                code="unknown_parameter",
            )
        if self._file is not None:
            raise ApiError("The form has several files; send one.", param="file", code="invalid_value")
        if not 1 <= len(filename) <= MAX_FILENAME_CHARS:
            message = f"The file's name must have 1 to {MAX_FILENAME_CHARS} characters, got {len(filename)}."
            raise ApiError(message, param="file", code="invalid_value")
        self.filename = filename
        # Closed by `close`; without a name there is nothing to remove, also after a kill.
        self._file = tempfile.TemporaryFile(dir=self._folder or None)  # noqa: SIM115

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.file_bytes += end - start
            if self.file_bytes > self._max_file_bytes:
                raise _too_long(self._max_file_bytes)
            self.file.write(data[start:end])
            return
        value = self._fields[self._name]
        value.extend(data[start:end])
        if len(value) > MAX_FIELD_BYTES:
            message = f"The field {self._name[:100]!r} is longer than {MAX_FIELD_BYTES} bytes."
            raise ApiError(message, param=self._name[:100], code="invalid_value")

    def _on_end(self) -> None:
        self._ended = True


async def read_form(request: Request, max_file_bytes: int, folder: str, threads: Threads) -> Form:
    """The whole form; the caller closes it. Only the network is waited for here: parsing and the disk have threads.
    Raises ApiError (400, 413, 415), BlobsUnavailable, ClientGone."""
    form = Form(_boundary(request), max_file_bytes, folder)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_file_bytes + MAX_FIELDS * 2 * MAX_FIELD_BYTES:
        raise _too_long(max_file_bytes)
    try:
        piece = bytearray()
        async for chunk in request.stream():
            piece += chunk
            if len(piece) >= PIECE_BYTES:
                await threads.call(form.feed, bytes(piece))
                piece.clear()
        await threads.call(form.feed, bytes(piece))
        await threads.call(form.end)
    except ClientDisconnect:
        form.close()
        raise ClientGone from None
    except BaseException:
        form.close()
        raise
    return form


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        message = f"The content type must be 'multipart/form-data', got {kind.decode('latin-1')[:100]!r}."
        raise ApiError(message, status=415, code="unsupported_media_type")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise _malformed("the content type has no boundary of 1 to 70 characters")
    return boundary


def _text(value: bytes, name: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise ApiError(f"{name!r} is not UTF-8.", param=name, code="invalid_value") from None
    if "\x00" in text:
        message = f"Invalid value for {name!r}: must not contain the character U+0000."
        raise ApiError(message, param=name, code="invalid_value")
    return text


@contextmanager
def _errors_as_ours() -> Iterator[None]:
    try:
        yield
    except FormParserError as exc:
        raise _malformed(str(exc)) from exc
    except OSError as exc:
        raise BlobsUnavailable(f"the upload cannot be written: {exc}") from exc


def _malformed(why: str) -> ApiError:
    return ApiError(f"The body is not valid multipart/form-data: {why}.", code="invalid_multipart")


def _too_long(limit: int) -> ApiError:
    # The rest of the body is not read, so the connection cannot be used again.
    return ApiError(
        f"The file is longer than {limit} bytes.",
        status=413,
        param="file",
        code="file_too_large",
        headers={"connection": "close"},
    )
