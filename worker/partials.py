"""Stores what running jobs have so far, in batches: every few seconds, and soon when a stamp of the timeline is due.

Knows nothing of streams: polling clients and a lost Redis live on what is stored here.
"""

import logging
import threading

from jobs.errors import StoreUnavailable
from jobs.ports import JobStore, Partial
from worker.live_job import EndKind, LiveJob, LiveJobs

log = logging.getLogger(__name__)

_GATHER_S = 0.02


class Partials:
    """`every_s`: how old what is stored may get."""

    def __init__(self, store: JobStore, live_jobs: LiveJobs, every_s: float) -> None:
        self._store = store
        self._live_jobs = live_jobs
        self._every_s = every_s
        self._stored: dict[str, tuple[int, int, bool]] = {}
        self._soon = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="partials", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self) -> None:
        """A job was prepared or has its first token: the timeline's stamp is the database's time of writing."""
        self._soon.set()

    def close(self) -> None:
        self._closing.set()
        self._soon.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._soon.wait(self._every_s):
                self._closing.wait(_GATHER_S)
            self._soon.clear()
            try:
                self._save()
            except StoreUnavailable as exc:
                log.warning("partial answers wait: %s", exc, extra={"action": "partials_wait"})
                self._closing.wait(self._every_s)

    def _save(self) -> None:
        live_jobs = {live.id: live for live in self._live_jobs.all() if not live.ending.done()}
        news = {live.id: state for live in live_jobs.values() if (state := _state(live)) != self._stored.get(live.id)}
        self._stored = {job_id: state for job_id, state in self._stored.items() if job_id in live_jobs}
        partials = [
            Partial(live.id, live.attempt, live.tokens, live.prepared) for live in map(live_jobs.__getitem__, news)
        ]
        if not partials:
            return
        for job_id in self._store.save_partials(partials):
            self._live_jobs.stop(job_id, EndKind.NOT_OURS)
        self._stored |= news


def _state(live: LiveJob) -> tuple[int, int, bool]:
    """What would be stored: attempt, tokens, prepared."""
    return live.attempt, len(live.tokens), live.prepared
