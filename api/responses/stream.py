"""A response's events as a stream of bytes, from any sequence number on."""

import logging
from collections.abc import AsyncGenerator

from api.backend import Backend
from api.errors import ApiError, as_api_error
from api.responses.events import ResponseEvents
from api.sse import KEEP_ALIVE, named_event
from jobs.errors import VlmqError
from jobs.events import Ended, log_of
from jobs.job import Job

log = logging.getLogger(__name__)

OPENING = b": response\n\n"
"""Sent at once, so that the client has the stream's head while nothing has happened yet."""


async def stream_of(backend: Backend, job: Job, after: int = -1) -> AsyncGenerator[bytes, None]:
    """One whole event per chunk, of those behind the sequence number `after`. Ends without a last event when the
    process goes down or the database is away: the client comes back with what it saw last; one that cannot, because
    the response is not stored, is told. What went before `after` is rendered too: the numbers follow from it."""
    events = ResponseEvents(job)
    async with backend.reader.follow(job.id, log_of(job)) as follower:
        try:
            while not follower.ended:
                batch = await follower.batch(backend.settings.keepalive_s)
                if not batch:
                    yield KEEP_ALIVE
                for _, event in batch:
                    ended = await _row(backend, job.id) if isinstance(event, Ended) else None
                    for shown in events.of(event, ended):
                        if (number := shown["sequence_number"]) > after:
                            yield named_event(shown["type"], number, shown)
        except (ApiError, VlmqError) as exc:
            log.warning("a stream ends early: %s", exc, extra={"action": "response.cut", "job_id": job.id})
            if not job.origin.stored:
                yield _broken_off(exc, job, events.next_number)


def _broken_off(exc: Exception, job: Job, number: int) -> bytes:
    """OpenAI's `error` event. Its number is no part of the log, so nobody who could resume behind it may see it."""
    error = as_api_error(exc)
    message = f"{error.message} The answer goes on at /v1/jobs/{job.id}/events."
    shown = {"type": "error", "code": error.code, "message": message, "param": None, "sequence_number": number}
    return named_event("error", number, shown)


async def _row(backend: Backend, job_id: str) -> Job:
    return await backend.threads.call(backend.settling.ended, job_id)


def last_number(job: Job) -> int:
    """The sequence number of the last event that an ended job's stream has."""
    events = ResponseEvents(job)
    return sum(len(events.of(event, job)) for event in log_of(job)) - 1
