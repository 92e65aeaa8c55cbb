"""`python -m api.batch_process`: moves batches on. Several may run; one leads, another takes over when it dies."""

import contextlib
import logging
import signal
import threading
import time

from api.backend import submission_of
from api.batching.intake import LineIntake
from api.batching.pace import Pace
from api.batching.runner import BatchRunner
from api.batching.validation import Limits, Stopped
from api.settings import ApiSettings
from api.settling import Settling
from jobs import connect, log_lines
from jobs.errors import StoreUnavailable, Unavailable
from jobs.leadership import BATCHES, Leadership
from jobs.settings import ServiceSettings, load

log = logging.getLogger("api.batch_process")

PAUSE_AFTER_A_FAULT_S = 60.0


class BatchProcess:
    """One process's loop. `turn` gives every batch a step."""

    def __init__(self, services: ServiceSettings, settings: ApiSettings, stop: threading.Event) -> None:
        client = connect.redis_client(services)
        self._database = connect.database(services, pool_size=1)
        self._queue = connect.queue(services)
        self._stop = stop
        self._store = connect.batch_store(self._database)
        jobs = connect.job_store(self._database)
        submission = submission_of(settings, services, self._database, self._queue)
        self._runner = BatchRunner(
            store=self._store,
            blobs=submission.blobs,
            intake=LineIntake(submission),
            pace=Pace(connect.api_keys(self._database), connect.key_usage(self._database)),
            settling=Settling(
                jobs, connect.event_log(services, client), connect.control(services, client), services.stream_ttl_s
            ),
            limits=Limits(settings.max_batch_lines, settings.max_body_bytes),
            spool_folder=services.spool_folder,
            stopping=stop.is_set,
        )
        self._leadership = Leadership(self._database, BATCHES, services.lease_s)
        self._led = False
        self._aside: dict[str, float] = {}

    def turn(self) -> bool:
        """Whether there is more to do at once. Raises Unavailable."""
        led, self._led = self._led, False
        if not self._leadership.held():
            return False
        self._led = True
        if not led:
            log.info("leading", extra={"action": "leading"})
        busy = False
        for batch_id in self._store.active():
            if self._stop.is_set() or not self._leadership.held():
                return False
            if time.monotonic() >= self._aside.get(batch_id, 0.0):
                busy |= self._step(batch_id)
        return busy

    def _step(self, batch_id: str) -> bool:
        try:
            return self._runner.step(self._store.get(batch_id))
        except Stopped:
            return False
        except Unavailable:
            raise
        except Exception:
            # One batch's fault must not stop the others.
            log.exception("%s is put aside", batch_id, extra={"action": "batch.aside", "batch_id": batch_id})
            self._aside[batch_id] = time.monotonic() + PAUSE_AFTER_A_FAULT_S
            return False

    def close(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._leadership.close()
        self._queue.close()
        self._database.close()


def main() -> None:
    log_lines.configure()
    settings = load(ApiSettings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    process = BatchProcess(load(ServiceSettings), settings, stop)
    log.info("ready", extra={"action": "ready"})
    while not stop.is_set():
        busy = False
        try:
            busy = process.turn()
        except Unavailable as exc:
            log.warning("waiting: %s", exc, extra={"action": "unavailable"})
        if not busy:
            stop.wait(settings.batch_poll_s)
    process.close()


if __name__ == "__main__":
    main()
