"""The live event logs as Redis Streams, one per job. Carries events, decides nothing: see jobs.events for the order.

The API's reader follows many streams at once by itself; it needs `stream_key`, `entry_after` and `decode_entry`.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import redis
from redis.exceptions import NoScriptError, ResponseError

from jobs import event_scripts
from jobs.errors import LogGap, LogRefused, StaleAttempt, StreamUnavailable
from jobs.event_scripts import DONE, STALE
from jobs.events import Event
from jobs.ports import Append

RUNNING_TTL_S = 3600
"""A log that nobody appends to for so long is forgotten; the row still knows it."""

ERASED_TTL_S = 60
"""How long it is remembered that a log was erased: longer than anybody keeps what was in it. Only the id is kept."""

FIELD = b"e"
_TRIES = 3
_SCANNED = 500

_events = msgspec.msgpack.Decoder(list[Event])


def stream_key(prefix: str, job_id: str) -> str:
    """The stream of a job's events. The braces keep a job's keys in one slot of a cluster."""
    return f"{prefix}{{{job_id}}}:events"


def fence_key(prefix: str, job_id: str) -> str:
    return f"{prefix}{{{job_id}}}:attempt"


def entry_after(sequence: int) -> str:
    """The ID to read from (exclusive, as XREAD does) by who has seen the log up to `sequence`; -1: nothing yet. The
    first entry read may begin with events that the reader has."""
    return f"{sequence + 1}-0"


def decode_entry(entry_id: bytes | str, fields: Mapping[bytes, bytes]) -> tuple[int, list[Event]]:
    """The sequence of an entry's first event, and its events. Raises LogRefused for one of another make."""
    number = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    try:
        events = _events.decode(fields[FIELD])
    except (msgspec.MsgspecError, KeyError) as exc:
        raise LogRefused(f"entry {number} of an event log cannot be read: {exc}") from exc
    return int(number.partition("-")[0]) - len(events), events


@dataclass(frozen=True, slots=True)
class _Call:
    script: str
    job_id: str
    arguments: tuple[Any, ...]


_Reply = tuple[int, int] | LogRefused
"""Status and next sequence."""


class RedisEventLog:
    """`ended_ttl_s` is how long a log stays after its end."""

    def __init__(self, client: redis.Redis, prefix: str, ended_ttl_s: int) -> None:
        self._client = client
        self._prefix = prefix
        self._ended_ttl_s = ended_ttl_s

    def open(self, job_id: str, attempt: int, log: Sequence[Event]) -> list[Event]:
        call = _Call(event_scripts.OPEN, job_id, (attempt, len(log), _encode(job_id, log), RUNNING_TTL_S))
        status, following = self._run_one(call)
        if status == STALE:
            raise StaleAttempt(job_id, attempt)
        if following > len(log):
            try:
                return self.read(job_id)
            except LogRefused:
                self._forget_events(job_id)
        if following != len(log):
            (failure,) = self.append([Append(job_id, attempt, 0, log)])
            if failure is not None:
                raise failure
        return list(log)

    def append(self, appends: Sequence[Append]) -> list[Exception | None]:
        results: list[Exception | None] = [None] * len(appends)
        pending = []
        for place, append in enumerate(appends):
            try:
                if append.events:
                    pending.append((place, append, _append_call(append)))
            except LogRefused as exc:
                results[place] = exc
        for _ in range(_TRIES):
            if not pending:
                break
            replies = self._run([call for _, _, call in pending])
            again = []
            for (place, append, _), reply in zip(pending, replies, strict=True):
                match _judge(append, reply):
                    case Append() as rest:
                        again.append((place, rest, _append_call(rest)))
                    case result:
                        results[place] = result
            pending = again
        for place, append, _ in pending:
            results[place] = LogGap(append.job_id, append.first)
        return results

    def end(self, job_id: str, log: Sequence[Event]) -> list[Event]:
        last = len(log) - 1
        first = 0
        for _ in range(_TRIES):
            body, ended = _encode(job_id, log[first:last]), _encode(job_id, log[last:])
            call = _Call(event_scripts.END, job_id, (first, last, body, ended, self._ended_ttl_s))
            status, first = self._run_one(call)
            if status != DONE:
                continue
            try:
                return self.read(job_id)
            except LogRefused:
                self._forget_events(job_id)
                first = 0
        raise StreamUnavailable(f"the event log of job {job_id!r} changes while it is ended")

    def read(self, job_id: str) -> list[Event]:
        with _errors_as_ours():
            try:
                entries: Any = self._client.xrange(stream_key(self._prefix, job_id))
            except ResponseError as exc:
                raise _refused(job_id, exc) from exc
        return [event for entry_id, fields in entries for event in decode_entry(entry_id, fields)[1]]

    def unended(self) -> Iterator[list[str]]:
        head, tail = f"{self._prefix}{{", "}:attempt"
        cursor = 0
        while True:
            with _errors_as_ours():
                cursor, keys = self._scan(cursor, f"{head}*{tail}")
                fences: Any = self._client.mget(keys) if keys else []
            yield [
                key.decode().removeprefix(head).removesuffix(tail)
                for key, fence in zip(keys, fences, strict=True)
                if fence is not None and fence.isdigit()
            ]
            if not cursor:
                return

    def _scan(self, cursor: int, pattern: str) -> tuple[int, list[bytes]]:
        reply: Any = self._client.scan(cursor, match=pattern, count=_SCANNED)
        return int(reply[0]), list(reply[1])

    def drop(self, job_id: str) -> None:
        with _errors_as_ours():
            self._client.delete(stream_key(self._prefix, job_id), fence_key(self._prefix, job_id))

    def erase(self, job_ids: Sequence[str]) -> None:
        if job_ids:
            for reply in self._run([_Call(event_scripts.ERASE, job_id, (ERASED_TTL_S,)) for job_id in job_ids]):
                if isinstance(reply, LogRefused):
                    raise reply

    def _forget_events(self, job_id: str) -> None:
        """Whoever may append sends them again; who that is, is remembered."""
        with _errors_as_ours():
            self._client.delete(stream_key(self._prefix, job_id))

    def _run_one(self, call: _Call) -> tuple[int, int]:
        (reply,) = self._run([call])
        if isinstance(reply, LogRefused):
            raise reply
        return reply

    def _run(self, calls: Sequence[_Call]) -> list[_Reply]:
        """All calls in one journey; a second one when Redis has forgotten the scripts."""
        with _errors_as_ours():
            replies = self._send(calls)
            missing = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if missing:
                for script in {calls[place].script for place in missing}:
                    self._client.script_load(script)
                for place, reply in zip(missing, self._send([calls[place] for place in missing]), strict=True):
                    replies[place] = reply
        return [
            _refused(call.job_id, reply) if isinstance(reply, Exception) else (int(reply[0]), int(reply[1]))
            for call, reply in zip(calls, replies, strict=True)
        ]

    def _send(self, calls: Sequence[_Call]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            keys = (stream_key(self._prefix, call.job_id), fence_key(self._prefix, call.job_id))
            pipeline.evalsha(_SHA1[call.script], 2, *keys, *call.arguments)
        return pipeline.execute(raise_on_error=False)


def _refused(job_id: str, exc: Exception) -> LogRefused:
    return LogRefused(f"Redis refuses the event log of job {job_id!r}: {exc}")


def _encode(job_id: str, events: Sequence[Event]) -> bytes:
    """Raises LogRefused, for example for a text that is none."""
    try:
        return msgspec.msgpack.encode(list(events))
    except (ValueError, TypeError, OverflowError) as exc:
        raise LogRefused(f"events of job {job_id!r} cannot be written: {exc}") from exc


def _append_call(append: Append) -> _Call:
    upto = append.first + len(append.events)
    arguments = (append.attempt, append.first, upto, _encode(append.job_id, append.events), RUNNING_TTL_S)
    return _Call(event_scripts.APPEND, append.job_id, arguments)


def _judge(append: Append, reply: _Reply) -> Append | Exception | None:
    """What the reply to an append means: done, an error, or the rest of the events to send instead."""
    if isinstance(reply, LogRefused):
        return reply
    status, following = reply
    if status == DONE:
        return None
    if status == STALE:
        return StaleAttempt(append.job_id, append.attempt)
    if following < append.first:
        return LogGap(append.job_id, following)
    rest = append.events[following - append.first :]
    return replace(append, first=following, events=rest) if rest else None


_SHA1 = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (event_scripts.OPEN, event_scripts.APPEND, event_scripts.END, event_scripts.ERASE)
}


@contextlib.contextmanager
def _errors_as_ours() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as exc:
        raise StreamUnavailable(f"Redis does not answer: {exc}") from exc
