"""Server-sent events: framing, and a response that notices when its client has gone. Knows no jobs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import Response
from starlette.background import BackgroundTask
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = b": keep-alive\n"
"""Without the empty line that ends an event: OpenAI's client, which remembers the last id, takes one for an event
without data."""
DONE = b"data: [DONE]\n\n"

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx would otherwise collect the stream before it passes it on.
    "x-accel-buffering": "no",
}

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed its connection while the request waited."""


def data_event(data: Any) -> bytes:
    """One event without a name, as OpenAI's chat streams have them."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def named_event(name: str, sequence: int, data: Any) -> bytes:
    """One event that a client can resume behind by `Last-Event-ID`."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (sequence, name.encode(), msgspec.json.encode(data))


async def client_leaves(receive: Receive) -> None:
    """Returns when the client has closed the connection. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves before. Raises ClientGone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(client_leaves(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        await _cancel(task)
        await _cancel(gone)


async def _cancel(task: "asyncio.Future[Any]") -> None:
    if not task.done():
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class EventStream(Response):
    """Sends each chunk of `source` as it comes, after `first`. `on_gone` is awaited when the client leaves before
    the end; `source` is closed in any case. `background` runs after all of that."""

    def __init__(
        self,
        first: bytes,
        source: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.status_code = 200
        self.background: BackgroundTask | None = None
        self._first = first
        self._source = source
        self._on_gone = on_gone
        self.init_headers({**HEADERS, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(send))
        gone = asyncio.create_task(client_leaves(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
            elif self._on_gone is not None:
                await self._on_gone()
        finally:
            await _cancel(pump)
            await _cancel(gone)
            if self.background is not None:
                await self.background()

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._source) as source:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for chunk in source:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
