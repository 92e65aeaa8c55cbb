"""Publishes running jobs' tokens to their event logs: gathered for some milliseconds, all jobs in one round trip.

Keeps each running job's whole log, so that whatever Redis loses is sent again. A log that it refuses waits alone; when
it is away, all wait. One thread sends; adding never blocks.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.errors import LogGap, LogRefused, StaleAttempt, StreamUnavailable
from jobs.events import Delta, Ended, Event
from jobs.job import JobState, Token
from jobs.ports import Append, EventLog

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_KEPT_ENDED = 1000

Stale = Callable[[], None]


@dataclass(slots=True)
class _Log:
    """`sent`: the log holds the events before this sequence. `opened`: our attempt is the one that may append.
    `fresh`: the attempt has added nothing yet. `pause_s`: between the last refusal and the next try; `refused`: it is
    waited for now."""

    job_id: str
    attempt: int
    events: list[Event]
    on_stale: Stale
    sent: int = 0
    opened: bool = False
    fresh: bool = True
    ended: bool = False
    refused: bool = False
    pause_s: float = 0.0

    @property
    def due(self) -> bool:
        return self.sent < len(self.events)


@dataclass(slots=True)
class _Mail:
    """What the sender has to do: which logs have news, and whether they can wait for company."""

    logs: dict[str, _Log] = field(default_factory=dict)
    urgent: bool = False


class Publisher:
    """`flush_s`: how long tokens after the first may wait."""

    def __init__(self, event_log: EventLog, flush_s: float) -> None:
        self._event_log = event_log
        self._flush_s = flush_s
        self._logs: dict[str, _Log] = {}
        self._mail = _Mail()
        self._refused: list[tuple[float, _Log]] = []
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._send_all, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open(self, job_id: str, attempt: int, events: Sequence[Event], on_stale: Stale) -> list[Event]:
        """Opens the job's log for this attempt with the row's events and returns the whole log, longer when more
        had been published than stored. When Redis is away the row's events are all there is, and the log is opened
        later. Raises StaleAttempt. `on_stale` is called when it turns out that the attempt is no longer current."""
        entry = _Log(job_id, attempt, list(events), on_stale)
        try:
            entry.events = self._event_log.open(job_id, attempt, entry.events)
            entry.sent, entry.opened = len(entry.events), True
        except StreamUnavailable as exc:
            log.warning("publishing later: %s", exc, extra={"action": "publish_later", "job_id": job_id})
        with self._news:
            self._logs[job_id] = entry
            if entry.due:
                self._post(entry, urgent=False)
        return list(entry.events)

    def add(self, job_id: str, attempt: int, tokens: Sequence[Token]) -> None:
        """Appends tokens. The first ones of an attempt go out at once."""
        with self._news:
            entry = self._entry(job_id, attempt)
            if entry is not None and not entry.ended:
                entry.events += [Delta(token) for token in tokens]
                self._post(entry, urgent=entry.fresh)
                entry.fresh = False

    def end(self, job_id: str, attempt: int, state: JobState) -> None:
        """Appends the end, after the row has it. The log is forgotten once it is out."""
        with self._news:
            entry = self._entry(job_id, attempt)
            if entry is not None and not entry.ended:
                entry.events.append(Ended(state))
                entry.ended = True
                self._post(entry, urgent=True)

    def forget(self, job_id: str, attempt: int) -> None:
        """The job goes on elsewhere: nothing more of this attempt is sent."""
        with self._news:
            entry = self._entry(job_id, attempt)
            if entry is not None:
                del self._logs[job_id]
                self._mail.logs.pop(job_id, None)

    def close(self, timeout_s: float) -> None:
        """Sends what is left, if it can within the time."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(timeout_s)

    def _entry(self, job_id: str, attempt: int) -> _Log | None:
        entry = self._logs.get(job_id)
        return entry if entry is not None and entry.attempt == attempt else None

    def _post(self, entry: _Log, urgent: bool) -> None:
        if entry.refused:
            return
        wake = not self._mail.logs or (urgent and not self._mail.urgent)
        self._mail.logs[entry.job_id] = entry
        self._mail.urgent = self._mail.urgent or urgent
        if wake:
            self._news.notify_all()

    def _send_all(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while (batch := self._collect()) is not None:
            try:
                self._send(batch)
                pause_s = _FIRST_PAUSE_S
            except StreamUnavailable as exc:
                log.warning("event logs wait: %s", exc, extra={"action": "publish_wait"})
                self._again(batch)
                if self._closing:
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _collect(self) -> list[_Log] | None:
        """The logs with news, after the first of it has waited for company; None when there will be none."""
        with self._news:
            self._news.wait_for(lambda: self._mail.logs or self._closing, self._until_retry_s())
            self._readmit()
            self._news.wait_for(lambda: self._mail.urgent or self._closing, self._flush_s)
            mail, self._mail = self._mail, _Mail()
            batch = list(mail.logs.values())
            return batch if batch or not self._closing else None

    def _again(self, batch: list[_Log]) -> None:
        with self._news:
            for entry in batch:
                if self._logs.get(entry.job_id) is entry and entry.due and not entry.refused:
                    self._mail.logs[entry.job_id] = entry
            over = [entry for entry in self._logs.values() if entry.ended][:-_KEPT_ENDED]
            for entry in over:
                # Redis has been away for a thousand endings. Readers rebuild these logs from their rows.
                del self._logs[entry.job_id]
                self._mail.logs.pop(entry.job_id, None)

    def _send(self, batch: list[_Log]) -> None:
        for entry in batch:
            if not entry.opened and not entry.ended:
                self._each(entry, self._reopen)
        with self._news:
            ended = [entry for entry in batch if entry.ended]
            due = [entry for entry in batch if entry.opened and entry.due and not entry.ended]
            appends = [Append(e.job_id, e.attempt, e.sent, e.events[e.sent :]) for e in due]
        if appends:
            for entry, append, answer in zip(due, appends, self._event_log.append(appends), strict=True):
                self._settle(entry, append, answer)
        for entry in ended:
            self._each(entry, self._end)

    def _end(self, entry: _Log) -> None:
        self._event_log.end(entry.job_id, entry.events)
        self.forget(entry.job_id, entry.attempt)

    def _each(self, entry: _Log, step: Callable[[_Log], None]) -> None:
        try:
            step(entry)
        except LogRefused as exc:
            self._refuse(entry, exc)

    def _refuse(self, entry: _Log, exc: LogRefused) -> None:
        if not entry.pause_s:
            log.warning("a log waits: %s", exc, extra={"action": "publish_refused", "job_id": entry.job_id})
        if entry.ended and entry.pause_s >= _LONGEST_PAUSE_S:
            # Readers, and the cleaner, end it from its row.
            log.warning("a log is given up: %s", exc, extra={"action": "publish_given_up", "job_id": entry.job_id})
            self.forget(entry.job_id, entry.attempt)
            return
        with self._news:
            entry.refused = True
            entry.pause_s = min(2 * entry.pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            self._refused.append((time.monotonic() + entry.pause_s, entry))

    def _until_retry_s(self) -> float | None:
        return max(0.0, min(at for at, _ in self._refused) - time.monotonic()) if self._refused else None

    def _readmit(self) -> None:
        """Refused logs whose pause is over."""
        if not self._refused:
            return
        now = time.monotonic()
        ready = [entry for at, entry in self._refused if at <= now]
        self._refused = [(at, entry) for at, entry in self._refused if at > now]
        for entry in ready:
            entry.refused = False
            if self._logs.get(entry.job_id) is entry and entry.due:
                self._post(entry, urgent=True)

    def _settle(self, entry: _Log, append: Append, answer: Exception | None) -> None:
        match answer:
            case None:
                entry.sent, entry.pause_s = append.first + len(append.events), 0.0
            case LogGap(next_sequence=sequence):
                # Redis has forgotten some of the log, or all of it and with it who may append.
                entry.sent, entry.opened = sequence, sequence > 0
            case StaleAttempt():
                self._stale(entry)
            case LogRefused():
                self._refuse(entry, answer)
            case _:
                raise answer
        self._post_rest(entry, urgent=answer is not None)

    def _reopen(self, entry: _Log) -> None:
        events = list(entry.events)
        try:
            known = self._event_log.open(entry.job_id, entry.attempt, events)
        except StaleAttempt:
            self._stale(entry)
            return
        entry.sent, entry.opened = min(len(known), len(events)), True

    def _post_rest(self, entry: _Log, urgent: bool) -> None:
        """What came while its log was being written to."""
        with self._news:
            if self._logs.get(entry.job_id) is entry and entry.due:
                self._post(entry, urgent)

    def _stale(self, entry: _Log) -> None:
        self.forget(entry.job_id, entry.attempt)
        if not entry.ended:
            entry.on_stale()
