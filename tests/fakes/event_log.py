"""The event logs in memory. Passes the contract of the real one."""

from collections.abc import Iterator, Sequence

from jobs.errors import LogGap, StaleAttempt
from jobs.events import Ended, Event
from jobs.ports import Append


class FakeEventLog:
    def __init__(self) -> None:
        self._logs: dict[str, list[Event]] = {}
        self._fences: dict[str, int] = {}
        self._erased: set[str] = set()

    def open(self, job_id: str, attempt: int, log: Sequence[Event]) -> list[Event]:
        if self._stale(job_id, attempt):
            raise StaleAttempt(job_id, attempt)
        self._fences[job_id] = attempt
        known = self._logs.setdefault(job_id, [])
        known.extend(log[len(known) :])
        return list(known)

    def append(self, appends: Sequence[Append]) -> list[Exception | None]:
        return [self._append(append) for append in appends]

    def end(self, job_id: str, log: Sequence[Event]) -> list[Event]:
        if job_id in self._erased:
            return []
        known = self._logs.setdefault(job_id, [])
        if not self._ended(job_id):
            known.extend(log[len(known) : -1])
            known.append(log[-1])
        return list(known)

    def read(self, job_id: str) -> list[Event]:
        return list(self._logs.get(job_id, []))

    def unended(self) -> Iterator[list[str]]:
        yield [job_id for job_id in self._fences if not self._ended(job_id)]

    def drop(self, job_id: str) -> None:
        self._logs.pop(job_id, None)
        self._fences.pop(job_id, None)
        self._erased.discard(job_id)

    def erase(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self.drop(job_id)
            self._erased.add(job_id)

    def _append(self, append: Append) -> Exception | None:
        if not append.events:
            return None
        if self._stale(append.job_id, append.attempt):
            return StaleAttempt(append.job_id, append.attempt)
        known = self._logs.get(append.job_id, [])
        if append.first > len(known):
            return LogGap(append.job_id, len(known))
        self._fences[append.job_id] = append.attempt
        known.extend(append.events[len(known) - append.first :])
        self._logs[append.job_id] = known
        return None

    def _ended(self, job_id: str) -> bool:
        known = self._logs.get(job_id, [])
        return bool(known) and isinstance(known[-1], Ended)

    def _stale(self, job_id: str, attempt: int) -> bool:
        return job_id in self._erased or self._ended(job_id) or self._fences.get(job_id, 0) > attempt
