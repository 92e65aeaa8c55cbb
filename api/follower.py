"""One reader's place in one job's log: what it has been given, what it still needs, and a bounded buffer between."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from api.errors import ServerClosing
from jobs.errors import JobNotFound
from jobs.events import Ended, Event

Sequenced = tuple[int, Event]


class Follower:
    """Events go in by `offer` and come out by `batch`, each exactly once and in order. Not thread-safe: one loop."""

    def __init__(self, job_id: str, after: int, limit: int, room: Callable[[], None] = lambda: None) -> None:
        """`room` is called when a full buffer has been emptied: what was not taken must be offered again."""
        self.job_id = job_id
        self.expected = after + 1
        """The first sequence number that has not been offered yet."""
        self.ended = False
        """Everything up to and including `Ended` has been taken out by `batch`."""
        self._buffer: deque[Sequenced] = deque()
        self._limit = limit
        self._room = room
        self._complete = False
        self._news = asyncio.Event()
        self._fault: Exception | None = None

    @property
    def wants_more(self) -> bool:
        """False while the buffer is full (the reader is slow) and after the end: then nothing needs to be read."""
        return not self._complete and self._fault is None and len(self._buffer) < self._limit

    def offer(self, first: int, events: Sequence[Event]) -> bool:
        """Takes what is new of `events`, the first of which has the sequence `first`. False: they start beyond what
        is expected, so something in between is missing."""
        if not self.wants_more:
            return True
        if first > self.expected:
            return False
        for event in events[self.expected - first :]:
            self._buffer.append((self.expected, event))
            self.expected += 1
        # Of a reader that begins behind the end, nothing is left either.
        self._complete = bool(events) and isinstance(events[-1], Ended)
        if self._buffer or self._complete:
            self._news.set()
        return True

    async def batch(self, timeout_s: float) -> list[Sequenced]:
        """All events that wait, or those that come within `timeout_s`; empty after that time and after the end.
        Raises JobNotFound when the job was deleted, ServerClosing when the process goes down."""
        if not self._buffer and not self.ended and self._fault is None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        self._news.clear()
        if not self._buffer and self._fault is not None:
            raise self._fault
        taken = list(self._buffer)
        self._buffer.clear()
        self.ended = self._complete
        if len(taken) >= self._limit:
            self._room()
        return taken

    def job_is_gone(self) -> None:
        self._fail(JobNotFound(self.job_id))

    def server_closes(self) -> None:
        self._fail(ServerClosing())

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self._news.set()
