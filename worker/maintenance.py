"""`python -m worker.maintenance`: the sweeper's loop. Several may run; one leads, another takes over when it dies."""

import contextlib
import logging
import signal
import threading
import time

from jobs import connect
from jobs.errors import StoreUnavailable
from jobs.leadership import MAINTENANCE, Leadership
from jobs.settings import ServiceSettings, load
from jobs.webhooks.bells import DeliveryBells
from jobs.webhooks.delivery_store import PostgresDeliveries
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.settings import WebhookSettings
from worker.settings import MaintenanceSettings
from worker.sweeper import Sweeper, SweepTimes

log = logging.getLogger("worker.maintenance")

_BEGINNING = float("-inf")


class Maintenance:
    """One process's loop. `turn` is one round of it."""

    def __init__(
        self, services: ServiceSettings, settings: MaintenanceSettings, webhooks: WebhookSettings | None = None
    ) -> None:
        webhooks = webhooks or load(WebhookSettings)
        client = connect.redis_client(services)
        self._database = connect.database(services, pool_size=1)
        self._queue = connect.queue(services)
        self._sweeper = Sweeper(
            connect.job_store(self._database),
            connect.event_log(services, client),
            self._queue,
            connect.control(services, client),
            connect.blobs(services),
            SweepTimes(services.lease_s, services.retention_s, settings.blob_age_s),
        )
        self._files = connect.file_store(self._database)
        self._batches = connect.batch_store(self._database)
        self._batch_retention_s = settings.batch_retention_s
        self._idempotency = connect.idempotency_keys(self._database)
        self._usage = connect.key_usage(self._database)
        self._bells = DeliveryBells(services, client, PostgresErrands(self._database, webhooks))
        self._deliveries = PostgresDeliveries(self._database)
        self._delivery_retention_s = webhooks.retention_s
        self._leadership = Leadership(self._database, MAINTENANCE, services.lease_s)
        self._clean_s = settings.clean_s
        self._cleaned = _BEGINNING
        self._led = False

    def turn(self) -> None:
        """Raises StoreUnavailable."""
        led, self._led = self._led, False
        if not self._leadership.held():
            return
        self._led = True
        if not led:
            log.info("leading", extra={"action": "leading"})
        self._sweeper.sweep()
        self._sweeper.ring()
        self._bells.ring()
        if time.monotonic() - self._cleaned >= self._clean_s:
            self._cleaned = time.monotonic()
            self._sweeper.clean()
            self._deliveries.expire(self._delivery_retention_s)
            self._forget()
            self._files.expire()
            self._batches.expire(self._batch_retention_s)

    def _forget(self) -> None:
        """What is kept of requests."""
        while self._idempotency.expire():
            pass
        self._usage.forget()

    def close(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._leadership.close()
        self._queue.close()
        self._bells.close()
        self._database.close()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
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
