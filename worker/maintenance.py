"""`python -m worker.maintenance`: the sweeper's loop. Several may run; one leads, another takes over when it dies."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator

from jobs import connect, log_lines
from jobs.database import Database
from jobs.errors import StoreUnavailable
from jobs.leadership import MAINTENANCE, Leadership
from jobs.settings import ServiceSettings, load
from jobs.webhooks.bells import DeliveryBells
from jobs.webhooks.delivery_store import PostgresDeliveries
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.settings import WebhookSettings
from worker.cleaning import Chore, Cleaner, JobCleaning, until_few
from worker.settings import MaintenanceSettings
from worker.sweeper import Sweeper

log = logging.getLogger("worker.maintenance")

_MOST_BREAKS = 4
"""Before workers are judged again all the same: when Redis is frozen, say, every round takes as long as a break."""


class Contact:
    """Whether this process has had the database for long enough to judge workers by their silence: while nobody could
    write, all were silent. After a break each gets a lease in which to be heard."""

    def __init__(self, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._last: float | None = None
        self._judges_from = float("-inf")
        self._breaks = 0

    def made(self) -> bool:
        """To be called whenever the database has answered. Whether to judge."""
        now = self._clock()
        if self._last is not None and now - self._last > self._lease_s / 2 and self._breaks < _MOST_BREAKS:
            self._breaks += 1
            self._judges_from = now + self._lease_s
            log.warning("no database for %.1f s", now - self._last, extra={"action": "contact_again"})
        self._last = now
        judge = now >= self._judges_from
        if judge:
            self._breaks = 0
        return judge


class Maintenance:
    """One process's loop. `turn` is one round of it."""

    def __init__(
        self, services: ServiceSettings, settings: MaintenanceSettings, webhooks: WebhookSettings | None = None
    ) -> None:
        webhooks = webhooks or load(WebhookSettings)
        client = connect.redis_client(services)
        self._database = connect.database(services, pool_size=1)
        self._queue = connect.queue(services)
        store, event_log = connect.job_store(self._database), connect.event_log(services, client)
        self._sweeper = Sweeper(
            store,
            event_log,
            self._queue,
            connect.control(services, client),
            services.lease_s,
        )
        times = (services.retention_s, services.unstored_s, settings.blob_age_s)
        cleaning = JobCleaning(store, event_log, connect.blobs(services), *times)
        self._cleaner = Cleaner(
            (*_job_chores(cleaning), *_other_chores(self._database, settings, webhooks)),
            settings.clean_s,
            settings.clean_slice_s,
        )
        self._bells = DeliveryBells(services, client, PostgresErrands(self._database, webhooks))
        self._leadership = Leadership(self._database, MAINTENANCE, services.lease_s)
        self._led = False
        self._contact = Contact(services.lease_s)

    def turn(self) -> None:
        """Raises StoreUnavailable."""
        led, self._led = self._led, False
        leads = self._leadership.held()
        judge = self._contact.made()
        if not leads:
            return
        self._led = True
        if not led:
            log.info("leading", extra={"action": "leading"})
        self._sweeper.sweep(judge)
        self._sweeper.ring()
        self._bells.ring()
        self._cleaner.turn()
        self._contact.made()

    def close(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._leadership.close()
        self._queue.close()
        self._bells.close()
        self._database.close()


def _job_chores(cleaning: JobCleaning) -> tuple[Chore, ...]:
    # The bytes last: they are those that nobody refers to any more.
    shares = until_few(cleaning.forget_shares)
    return until_few(cleaning.purge), until_few(cleaning.expire), shares, cleaning.end_logs, cleaning.collect_blobs


def _other_chores(database: Database, settings: MaintenanceSettings, webhooks: WebhookSettings) -> tuple[Chore, ...]:
    deliveries, files = PostgresDeliveries(database), connect.file_store(database)
    batches, usage = connect.batch_store(database), connect.key_usage(database)

    def forget_usage() -> Iterator[None]:
        usage.forget()
        yield

    return (
        until_few(lambda limit: deliveries.expire(webhooks.retention_s, limit)),
        until_few(connect.idempotency_keys(database).expire),
        forget_usage,
        until_few(lambda limit: len(files.expire(limit))),
        until_few(lambda limit: len(batches.expire(settings.batch_retention_s, limit))),
    )


def main() -> None:
    log_lines.configure()
    settings = load(MaintenanceSettings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    maintenance = Maintenance(load(ServiceSettings), settings)
    log.info("ready", extra={"action": "ready"})
    while not stop.is_set():
        try:
            maintenance.turn()
        except StoreUnavailable as exc:
            log.warning("waiting: %s", exc, extra={"action": "no_database"})
        stop.wait(settings.sweep_s)
    maintenance.close()


if __name__ == "__main__":
    main()
