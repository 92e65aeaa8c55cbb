"""The workers and their heartbeats. Knows nothing of jobs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from jobs.ports import WorkerRecord, WorkerStatus


class Fleet:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._workers: dict[str, WorkerStatus] = {}

    def heartbeat(self, worker: WorkerRecord) -> None:
        known = self._workers.get(worker.id)
        started_at = known.started_at if known else self._now()
        self._workers[worker.id] = WorkerStatus(worker, started_at, self._now(), alive=True)

    def retire(self, worker_id: str) -> None:
        self._workers.pop(worker_id, None)

    def alive(self, worker: str | None, lease_s: float) -> bool:
        status = self._workers.get(worker or "")
        return status is not None and status.heartbeat_at >= self._now() - timedelta(seconds=lease_s)

    def statuses(self, lease_s: float) -> list[WorkerStatus]:
        known = sorted(self._workers.values(), key=lambda status: (status.started_at, status.record.id))
        return [replace(status, alive=self.alive(status.record.id, lease_s)) for status in known]

    def heed_clock(self, lease_s: float) -> None:
        """A heartbeat from before the clock was set back counts from now on."""
        for name, status in self._workers.items():
            if status.heartbeat_at > self._now() + timedelta(seconds=lease_s):
                self._workers[name] = replace(status, heartbeat_at=self._now())
