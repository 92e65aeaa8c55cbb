"""Stores what running jobs have so far, every few seconds and in one batch.

Knows nothing of streams: polling clients and a lost Redis live on what is stored here.
"""

import logging
import threading

from jobs.errors import StoreUnavailable
from jobs.ports import JobStore, Partial
from worker.live_job import LiveJob, LiveJobs

log = logging.getLogger(__name__)


class Partials:
    """`every_s`: how old what is stored may get."""

    def __init__(self, store: JobStore, live_jobs: LiveJobs, every_s: float) -> None:
        self._store = store
        self._live_jobs = live_jobs
        self._every_s = every_s
        self._stored: dict[str, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="partials", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            try:
                self._save()
            except StoreUnavailable as exc:
                log.warning("partial answers wait: %s", exc, extra={"action": "partials_wait"})

    def _save(self) -> None:
        live_jobs = {live.id: live for live in self._live_jobs.all() if not live.ending.done()}
        news = {live.id: state for live in live_jobs.values() if (state := _state(live)) != self._stored.get(live.id)}
        self._stored = {job_id: state for job_id, state in self._stored.items() if job_id in live_jobs}
        partials = [
            Partial(live.id, live.attempt, live.tokens, live.stamps) for live in map(live_jobs.__getitem__, news)
        ]
        if not partials:
            return
        for job_id in self._store.save_partials(partials):
            attempt, _ = news[job_id]
            self._live_jobs.disown(job_id, attempt)
        self._stored |= news


def _state(live: LiveJob) -> tuple[int, int]:
    """What would be stored: of which attempt, how many tokens."""
    return live.attempt, len(live.tokens)
