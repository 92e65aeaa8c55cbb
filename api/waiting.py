"""A request that waits for its job, at whichever door: until the job's end, or until the client leaves, the job fails
or the server goes down. Knows no shape of an answer.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from api.backend import Backend
from api.errors import ApiError, ServerClosing, as_api_error, error_response, of_job
from api.idempotency import Made, still_running
from api.settling import kept
from api.sse import ClientGone, EventStream, unless_gone
from api.unstored import after_delivery, with_afterwards
from jobs.errors import VlmqError
from jobs.events import log_of
from jobs.idempotency import IdempotencyKey
from jobs.job import Job


@dataclass(frozen=True, slots=True)
class Waiting:
    """`stays`: the client may come back for what it has left, so its leaving does not cancel the job. `headers` are of
    every answer, and `afterwards` runs behind its last byte."""

    backend: Backend
    request: Request
    job: Job
    headers: Mapping[str, str]
    replayed: bool
    stays: bool
    afterwards: BackgroundTask | None

    @classmethod
    def of(
        cls,
        backend: Backend,
        request: Request,
        made: Made[Job],
        key: IdempotencyKey | None,
        *,
        unstored: bool,
        background: bool = False,
    ) -> "Waiting":
        headers = {**made.headers, "x-vlmq-job-id": made.value.id}
        afterwards = after_delivery(backend, made.value, unstored=unstored, key=key)
        stays = background or key is not None
        return cls(backend, request, made.value, headers, made.replayed, stays, afterwards)

    async def whole(self, render: Callable[[Job], Mapping[str, Any]]) -> Response:
        """What `render` makes of the ended job; it may raise ApiError. Raises ApiError (409) for a repeated request
        while the first one waits, ClientGone."""
        if self.replayed and not self.job.state.terminal:
            raise still_running(self.job)
        return await self._delivered(self._whole(render))

    async def stream(self, source: AsyncGenerator[bytes, None]) -> Response:
        """Server-sent events. What fails before the first becomes an ordinary error. Raises ClientGone."""
        return await self._delivered(self._opened(source))

    def stream_at_once(self, opening: bytes, source: AsyncGenerator[bytes, None]) -> Response:
        """The same behind some bytes that are sent whatever happens."""
        return with_afterwards(self._events(opening, source), self.afterwards)

    async def _whole(self, render: Callable[[Job], Mapping[str, Any]]) -> Response:
        async with self.backend.reader.follow(self.job.id, log_of(self.job)) as follower:
            while not follower.ended:
                await follower.batch(self.backend.settings.keepalive_s)
        ended = await answered(self.backend, self.job.id)
        return JSONResponse(render(ended), headers=dict(self.headers))

    async def _opened(self, source: AsyncGenerator[bytes, None]) -> Response:
        return self._events(await anext(source), source)

    def _events(self, first: bytes, source: AsyncGenerator[bytes, None]) -> EventStream:
        return EventStream(first, source, self.headers, on_gone=self._leave)

    async def _delivered(self, answer: Awaitable[Response]) -> Response:
        try:
            return with_afterwards(await unless_gone(self.request, answer), self.afterwards)
        except ClientGone:
            await self._leave()
            if self.afterwards is not None:
                await self.afterwards()
            raise
        except ServerClosing as exc:
            # Nothing has been sent: the client's own retry does the work again elsewhere.
            await self._leave()
            return with_afterwards(error_response(exc, self.headers), self.afterwards)
        except (ApiError, VlmqError) as exc:
            return with_afterwards(error_response(as_api_error(exc), self.headers), self.afterwards)

    async def _leave(self) -> None:
        if not self.stays:
            await self.backend.threads.call(self.backend.settling.cancel, self.job.id)


async def answered(backend: Backend, job_id: str) -> Job:
    """The ended job's row. Raises ApiError, of the kind of its error, for one that failed; JobNotFound, JobPurged,
    StoreUnavailable."""
    ended = kept(await backend.threads.call(backend.settling.ended, job_id))
    if ended.error is not None:
        raise of_job(ended.error, job_id)
    return ended
