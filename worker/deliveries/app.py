"""The Celery application of a delivering process. Importing it does nothing; the courier is made when it starts."""

import logging
import signal
from typing import Any

from celery import Celery
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state

from jobs import connect, log_lines
from jobs.database import Database
from jobs.queue import celery_config
from jobs.settings import ServiceSettings, SettingsError, load
from jobs.webhooks.bells import QUEUE, TASK_DELIVER
from jobs.webhooks.destination import Destinations
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings
from worker import bells
from worker.deliveries.courier import Courier
from worker.pool import WakingPool, wake_consumer

log = logging.getLogger("worker.deliveries")


class DeliveriesApp(Celery):
    """Holds the process's courier, once it has started."""

    courier: Courier | None = None
    database: Database | None = None


app = DeliveriesApp("vlmq")
app.add_defaults(lambda: celery_config(load(ServiceSettings)) | bells.reading_strictly())


@app.task(name=TASK_DELIVER)
def deliver(delivery_id: str) -> None:
    """A bell: that delivery is due, or was."""
    assert app.courier is not None, "this task runs in a process that has started"
    app.courier.answer()


@worker_init.connect
def start(sender: Any, **_: Any) -> None:
    """Celery only logs what its signals raise, and would go on without a courier: so everything becomes an exit."""
    log_lines.configure()
    consumed = set(sender.app.amqp.queues.consume_from)
    if consumed != {QUEUE}:
        raise SystemExit(f"deliveries: queues {sorted(consumed)}: this process needs -Q {QUEUE}")
    sender.pool_cls = WakingPool
    try:
        settings = load(WebhookSettings)
        # A thread has a connection only while it claims or settles.
        app.database = connect.database(load(ServiceSettings), pool_size=min(settings.threads, 8))
    except SettingsError as exc:
        raise SystemExit(f"deliveries: {exc}") from exc
    sender_ = Sender(Destinations.of(settings), settings.timeout_s)
    app.courier = Courier(PostgresErrands(app.database, settings), sender_)


@after_setup_logger.connect
@after_setup_task_logger.connect
def shape_log(logger: logging.Logger, **_: Any) -> None:
    """Celery has made handlers of its own."""
    log_lines.shape(logger)


@worker_ready.connect
def announce(**_: Any) -> None:
    """From here on all signals to end mean the same: what is under way ends, within the time of one try."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _on_signal)
    log.info("deliveries ready", extra={"action": "ready"})


@worker_shutting_down.connect
def drain(**_: Any) -> None:
    """A signal before the process was ready."""
    if app.courier is not None:
        app.courier.stop()


@worker_shutdown.connect
def stop(**_: Any) -> None:
    """After all threads have returned."""
    if app.database is not None:
        app.database.close()


def _on_signal(number: int, frame: object) -> None:
    drain()
    state.should_stop = 0  # type: ignore[assignment]  # typed as None alone
    wake_consumer()
