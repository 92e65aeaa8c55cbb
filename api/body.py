"""A request's body as JSON, within its limit. Knows no fields."""

from typing import Any

import msgspec
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.errors import ApiError
from api.sse import ClientGone

MAX_DEPTH = 128
"""Levels of arrays and objects. What shows a body again, a schema or an item, has limits of its own at about 250."""


def check_headers(request: Request) -> None:
    """Raises ApiError for what no job-creating POST may have."""
    # Only JSON: a form or text/plain is what a foreign web page can send to a loopback port unasked.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            f"The content type must be 'application/json', got {kind!r}.", status=415, code="unsupported_media_type"
        )


async def read_body(request: Request, limit: int) -> bytes:
    """The raw body. Raises ApiError (413) as soon as it is known to be longer than `limit` bytes, ClientGone."""
    check_headers(request)
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise _too_long(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_long(limit)
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGone from None
    return b"".join(chunks)


def _too_long(limit: int) -> ApiError:
    # The rest of the body is not read, so the connection cannot be used again.
    return ApiError(
        f"The request body is longer than {limit} bytes.",
        status=413,
        code="request_too_large",
        headers={"connection": "close"},
    )


def parse_object(raw: bytes) -> dict[str, Any]:
    """Strict JSON (no NaN, no half surrogates, bounded depth); of equal keys the last counts. Raises ApiError."""
    try:
        value = msgspec.json.decode(raw)
    except RecursionError as exc:
        raise _too_deep() from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ApiError(f"The body is not valid JSON: {exc}.", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise ApiError(f"The body must be a JSON object, got {type(value).__name__}.", code="invalid_type")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _deeper(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _deeper(value: Any, levels: int) -> bool:
    here = [value]
    for _ in range(levels):
        inner = (entry for outer in here for entry in (outer.values() if isinstance(outer, dict) else outer))
        here = [entry for entry in inner if isinstance(entry, dict | list)]
    return bool(here)


def _too_deep() -> ApiError:
    return ApiError(f"The JSON body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")
