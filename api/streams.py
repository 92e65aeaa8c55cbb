"""One Redis reader for all streaming clients of a process: a single blocking XREAD over every followed log.

Knows entries and sequence numbers. What rows say comes from `look`, which also closes logs that lack their end; so
followers get through a dead Redis, an emptied one, and a worker that died between row and log.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from api.follower import Follower
from jobs.errors import StreamUnavailable, Unavailable
from jobs.event_log import decode_entry, entry_after, stream_key
from jobs.events import Event

log = logging.getLogger(__name__)

Look = Callable[[Sequence[str]], Awaitable[Mapping[str, Sequence[Event]]]]
"""From job ids to their logs as the rows tell them; jobs that are gone are missing. Raises Unavailable."""

BLOCK_S = 1.0
ENTRIES_PER_READ = 256
ROW_EVERY_S = 1.0
ROW_AT_MOST_EVERY_S = 4.0
BACK_OFF_S = (0.05, 2.0)


@dataclass(slots=True, eq=False)
class Channel:
    """One followed log. `hole` is set when Redis goes on beyond what a follower expects: the row must fill it."""

    key: str
    followers: set[Follower] = field(default_factory=set)
    hole: bool = False
    look_at: float = 0.0
    look_every_s: float = ROW_EVERY_S

    def heard(self, now: float) -> None:
        self.look_every_s = ROW_EVERY_S
        self.look_at = now + ROW_EVERY_S

    def silent(self, now: float, connected: bool) -> None:
        """The row had nothing new: look again later, at most so late while Redis would tell by itself."""
        if connected:
            self.look_every_s = min(2 * self.look_every_s, ROW_AT_MOST_EVERY_S)
        self.look_at = now + self.look_every_s

    @property
    def cursor(self) -> int | None:
        """The first sequence that some follower needs, None while nobody can take anything."""
        if self.hole:
            return None
        return min((f.expected for f in self.followers if f.wants_more), default=None)


class StreamReader:
    """`follow` gives each caller a Follower; two tasks feed them all, one from Redis and one from rows."""

    def __init__(self, redis: Redis, prefix: str, look: Look, buffer: int) -> None:
        """`buffer`: how many events are held for a follower that takes none."""
        self._redis = redis
        self._prefix = prefix
        self._look = look
        self._buffer = buffer
        self._channels: dict[str, Channel] = {}
        self._wake_key = f"{prefix}api:{uuid.uuid4().hex}:wake"
        self._wake_id = "0-0"
        self._wake = asyncio.Event()
        self._some = asyncio.Event()
        self._connected = True
        self._closing = False
        self.broken = False
        """A loop has ended by a fault of ours: the process is of no use to readers any more."""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def followers(self) -> int:
        return sum(len(channel.followers) for channel in self._channels.values())

    def start(self) -> None:
        loops = (self._read_redis, self._send_wakes, self._read_rows)
        self._tasks = [asyncio.create_task(loop(), name=f"streams{loop.__name__}") for loop in loops]
        for task in self._tasks:
            task.add_done_callback(self._died)

    def _died(self, task: "asyncio.Task[None]") -> None:
        """A loop that ends by a fault of ours leaves nobody waiting for ever."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.critical("the stream reader broke", exc_info=fault, extra={"action": "streams.broken"})
            self.broken = True
            self.close_followers()

    async def ping(self, timeout_s: float) -> bool:
        """Whether Redis answers in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    def close_followers(self) -> None:
        """Ends every follower, now and later, with ServerClosing."""
        self._closing = True
        for follower in self._all_followers():
            follower.server_closes()

    async def stop(self) -> None:
        self.close_followers()
        pending = set(self._tasks)
        while pending:
            for task in pending:
                # More than once: under Python 3.11 redis-py loses a cancellation that comes just when a write is done.
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.2)

    @asynccontextmanager
    async def follow(self, job_id: str, known: Sequence[Event], after: int = -1) -> AsyncIterator[Follower]:
        """Follows a log from the sequence `after + 1` on. `known` is the log as the caller's row tells it; it is given
        out at once. Inside the block `batch` yields events, contiguous and once; leaving the block ends it."""
        follower = Follower(job_id, after, self._buffer, self._read_on)
        follower.offer(0, known)
        channel = self._channels.get(job_id)
        if channel is None:
            channel = self._channels[job_id] = Channel(stream_key(self._prefix, job_id))
            channel.heard(time.monotonic())
        channel.followers.add(follower)
        if self._closing:
            follower.server_closes()
        self._read_on()
        try:
            yield follower
        finally:
            channel.followers.discard(follower)
            if not channel.followers and self._channels.get(job_id) is channel:
                del self._channels[job_id]

    def _read_on(self) -> None:
        self._some.set()
        self._wake.set()

    def _all_followers(self) -> Iterable[Follower]:
        return [follower for channel in self._channels.values() for follower in channel.followers]

    # -- from Redis

    async def _read_redis(self) -> None:
        pause = BACK_OFF_S[0]
        while True:
            cursors = self._cursors()
            if not cursors:
                self._some.clear()
                await self._some.wait()
                continue
            cursors[self._wake_key] = self._wake_id
            try:
                reply = await self._redis.xread(cursors, count=ENTRIES_PER_READ, block=int(BLOCK_S * 1000))
            except (RedisError, OSError) as exc:
                if self._connected:
                    log.warning("the event logs cannot be read: %s", exc, extra={"action": "streams.lost"})
                self._connected = False
                if isinstance(exc, ResponseError):
                    await self._clear(cursors)
                await asyncio.sleep(pause)
                pause = min(2 * pause, BACK_OFF_S[1])
                continue
            if not self._connected:
                log.info("the event logs can be read again", extra={"action": "streams.back"})
            self._connected, pause = True, BACK_OFF_S[0]
            self._spread(reply)

    async def _clear(self, keys: Iterable[str]) -> None:
        """Removes what is no stream: for one such key Redis refuses to read all. Nobody's log is lost with it."""
        with suppress(RedisError, OSError):
            for key in keys:
                if await self._redis.type(key) not in (b"stream", b"none"):
                    log.warning("a key is no event log: %s", key, extra={"action": "streams.cleared"})
                    await self._redis.delete(key)

    def _cursors(self) -> dict[Any, Any]:
        places = ((channel.key, channel.cursor) for channel in self._channels.values())
        return {key: entry_after(cursor - 1) for key, cursor in places if cursor is not None}

    def _spread(self, reply: Any) -> None:
        by_key = {channel.key: channel for channel in self._channels.values()}
        now = time.monotonic()
        for raw_key, entries in _streams(reply):
            key = raw_key.decode()
            if key == self._wake_key:
                self._wake_id = entries[-1][0].decode()
            elif (channel := by_key.get(key)) is not None:
                channel.heard(now)
                for entry_id, fields in entries:
                    self._take(channel, entry_id, fields)

    @staticmethod
    def _take(channel: Channel, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        try:
            first, events = decode_entry(entry_id, fields)
            missing = [follower for follower in channel.followers if not follower.offer(first, events)]
        except StreamUnavailable as exc:
            log.warning("an entry is passed over: %s", exc, extra={"action": "streams.entry"})
            missing = list(channel.followers)
        if missing:
            channel.hole = True
            channel.look_at = 0.0

    async def _send_wakes(self) -> None:
        """Interrupts the blocking read, so that it goes on with the logs that are followed by now."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            with suppress(RedisError, OSError):
                await self._redis.xadd(self._wake_key, {b"w": b""}, maxlen=1, approximate=False)
                await self._redis.expire(self._wake_key, 60)

    # -- from rows

    async def _read_rows(self) -> None:
        while True:
            await asyncio.sleep(ROW_EVERY_S / 4)
            now = time.monotonic()
            due = {job_id: c for job_id, c in self._channels.items() if c.look_at <= now}
            if not due:
                continue
            try:
                logs = await self._look(list(due))
            except Unavailable:
                for channel in due.values():
                    channel.look_at = now + ROW_EVERY_S
                continue
            for job_id, channel in due.items():
                self._from_row(channel, logs.get(job_id), time.monotonic())

    def _from_row(self, channel: Channel, events: Sequence[Event] | None, now: float) -> None:
        before = sum(follower.expected for follower in channel.followers)
        for follower in channel.followers:
            if events is None:
                follower.job_is_gone()
            else:
                follower.offer(0, events)
        moved = sum(follower.expected for follower in channel.followers) > before
        if moved or channel.hole:
            self._read_on()
        channel.hole = False
        if moved:
            channel.heard(now)
        else:
            channel.silent(now, self._connected)


def _streams(reply: Any) -> Iterable[tuple[bytes, list[tuple[bytes, Mapping[bytes, bytes]]]]]:
    """XREAD's answer as pairs of key and entries, whichever protocol version it came by."""
    if not reply:
        return ()
    if not isinstance(reply, dict):
        return ((key, entries) for key, entries in reply)
    return ((key, groups[0] if groups and isinstance(groups[0], list) else groups) for key, groups in reply.items())
