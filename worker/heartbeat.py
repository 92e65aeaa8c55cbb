"""Keeps this worker alive in the others' eyes, and hears which of its jobs to stop.

The heartbeat row is the lease of all its jobs; a tick asks the store which jobs are no longer ours. Both on a thread
and a connection of their own, so that nothing else can hold them up.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from jobs.errors import StoreUnavailable
from jobs.ports import JobStore, WorkerRecord
from worker.engine.generation import EngineStats
from worker.live_job import LiveJobs

log = logging.getLogger(__name__)

_CLAIM_S = 15.0
"""Longer than a claim's answer can be on its way."""


class Heartbeat:
    """`every_s`: how often the row is written; `tick_s`: how often the store is asked."""

    def __init__(
        self,
        store: JobStore,
        record: WorkerRecord,
        live_jobs: LiveJobs,
        stats: Callable[[], EngineStats | None],
        every_s: float,
        tick_s: float,
    ) -> None:
        self._store = store
        self._record = record
        self._live_jobs = live_jobs
        self._stats = stats
        self._every_s = every_s
        self._tick_s = tick_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Writes the first row before it returns: no job is claimed by a worker that nobody knows. Raises
        StoreUnavailable."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Stops the beat; the row stays until the worker is retired."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + self._every_s
        while not self._closing.wait(min(self._tick_s, self._every_s)):
            self._live_jobs.expire()
            try:
                if time.monotonic() >= due:
                    due = time.monotonic() + self._every_s
                    self._beat()
                self._tick()
            except StoreUnavailable as exc:
                log.warning("no heartbeat: %s", exc, extra={"action": "heartbeat_missed", "worker": self._record.id})

    def _beat(self) -> None:
        self._store.heartbeat(replace(self._record, stats=_stats_of(self._stats())))
        running = self._live_jobs.attempts()
        for job in self._store.give_back_unknown(self._record.id, running, _CLAIM_S):
            log.warning("gave back %s", job.id, extra={"action": "unknown_given_back", "job_id": job.id})

    def _tick(self) -> None:
        running = self._live_jobs.attempts()
        if running:
            for job_id in self._store.not_ours(self._record.id, running):
                self._live_jobs.disown(job_id, running[job_id])


def _stats_of(stats: EngineStats | None) -> dict[str, Any]:
    if stats is None:
        return {}
    values: dict[str, Any] = msgspec.to_builtins(stats, str_keys=True)
    return values
