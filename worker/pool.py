"""Celery's threads pool that tells the consumer at once when a thread is free.

Without prefetch the consumer only looks for the next message when its event loop turns; a job that ends on another
thread does not turn it, so that a free slot would wait for up to a second.
"""

from concurrent.futures import Future
from typing import Any

from celery.concurrency.thread import TaskPool
from kombu.asynchronous import get_event_loop


def _nothing() -> None:
    """What the event loop is woken for."""


def wake_consumer() -> None:
    """Makes the worker's event loop turn; safe from any thread."""
    hub = get_event_loop()
    if hub is not None:
        hub.call_soon(_nothing)


class WakingPool(TaskPool):
    """Threads; each job's end wakes the consumer."""

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super().on_apply(*args, **kwargs)
        done: Future[Any] = result.f
        done.add_done_callback(lambda _: wake_consumer())
        return result
