"""The Celery application of a worker: what happens at its start, at its signals, and at its end.

Importing it does nothing: Celery asks for its configuration when it needs it, and the runtime is made when a worker
starts. Flower and inspection commands use it without ever starting one.
"""

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.concurrency.thread import TaskPool
from celery.signals import (
    after_setup_logger,
    after_setup_task_logger,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import state

from jobs import log_lines
from jobs.queue import celery_config, queue_name
from jobs.settings import ServiceSettings, SettingsError, load
from worker import bells, heap
from worker.errors import BootRefused
from worker.pool import WakingPool, wake_consumer
from worker.settings import ModelSettings, WorkerSettings

if TYPE_CHECKING:
    from worker.runtime import Runtime

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.001
"""A thread that decodes a picture in Python may keep the interpreter this long from the others."""


class WorkerApp(Celery):
    """Holds the runtime of the process's worker, once it has started."""

    runtime: "Runtime | None" = None


app = WorkerApp("vlmq", include=["worker.tasks"])
app.add_defaults(lambda: celery_config(load(ServiceSettings)) | bells.reading_strictly())


@worker_init.connect
def start(sender: Any, **_: Any) -> None:
    """Celery only logs what its signals raise, and would go on without a runtime: so everything becomes an exit."""
    log_lines.configure()
    heap.keep_small()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.excepthook = _on_dead_thread
    try:
        _take_pool(sender)
        app.runtime = _boot(sender)
    except (BootRefused, SettingsError) as exc:
        raise SystemExit(f"worker: {exc}") from exc
    except Exception as exc:
        log.exception("boot failed", extra={"action": "boot_failed"})
        raise SystemExit(1) from exc


@after_setup_logger.connect
@after_setup_task_logger.connect
def shape_log(logger: logging.Logger, **_: Any) -> None:
    """Celery has made handlers of its own."""
    log_lines.shape(logger)


@worker_ready.connect
def announce(**_: Any) -> None:
    """From here on all signals to end mean the same; Celery's own cold shutdown would wait for ever on threads."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _on_signal)
    runtime = app.runtime
    if runtime is not None:
        log.info("worker %s ready", runtime.worker_id, extra={"action": "ready", "worker": runtime.worker_id})


@worker_shutting_down.connect
def drain(**_: Any) -> None:
    """A signal before the worker was ready."""
    if app.runtime is not None:
        app.runtime.drain()


@worker_shutdown.connect
def stop(**_: Any) -> None:
    """After all job threads have returned."""
    if app.runtime is not None:
        app.runtime.close()


def _on_signal(number: int, frame: object) -> None:
    """The first one drains; another one gives back at once what still runs."""
    if app.runtime is not None and state.should_stop is not None:
        app.runtime.hurry()
        return
    _stop(exit_code=0)


def _stop(exit_code: int) -> None:
    """Celery's warm shutdown: no more messages, then the threads' end. Draining bounds how long that takes."""
    if app.runtime is not None:
        app.runtime.drain()
    state.should_stop = exit_code  # type: ignore[assignment]  # typed as None alone
    wake_consumer()


def _on_given_up(detail: str) -> None:
    log.critical("the engine cannot be kept running: %s", detail, extra={"action": "engine_given_up"})
    _stop(exit_code=1)


def _on_dead_thread(failure: threading.ExceptHookArgs) -> None:
    """A worker that has lost one of its threads is no worker: its jobs go on elsewhere."""
    name = failure.thread.name if failure.thread is not None else "?"
    cause = (failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    log.critical("thread %s died", name, exc_info=cause, extra={"action": "thread_died"})
    _stop(exit_code=1)


def _boot(sender: Any) -> "Runtime":
    settings = load(WorkerSettings)
    model = ModelSettings.of(settings)
    _check_queue(sender, model.name)
    # Only now what is slow to import, and only in a worker: Flower runs without the worker's dependencies.
    from worker.boot import boot_worker

    return boot_worker(load(ServiceSettings), settings, model, _on_given_up)


def _take_pool(sender: Any) -> None:
    pool = sender.pool_cls
    name = pool if isinstance(pool, str) else pool.__module__.rpartition(".")[2]
    if name not in ("thread", "threads") and not (isinstance(pool, type) and issubclass(pool, TaskPool)):
        raise BootRefused(f"pool {name!r} cannot serve a model: its one engine needs -P threads")
    sender.pool_cls = WakingPool


def _check_queue(sender: Any, model: str) -> None:
    consumed = set(sender.app.amqp.queues.consume_from)
    if consumed != {queue_name(model)}:
        raise BootRefused(f"queues {sorted(consumed)}: a worker of model {model!r} needs -Q {queue_name(model)}")
