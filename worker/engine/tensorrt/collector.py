"""Takes every response of the executor on one thread: awaiting one request's responses would lose the others', and
what is awaited by several threads comes to any of them. Knows no generations."""

import threading
from collections.abc import Callable
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any

_AWAIT = timedelta(milliseconds=100)


class ExecutorFault(Exception):
    """The executor can serve nobody any longer."""


class Collector:
    """`on_news` is called on its thread when there is something to take."""

    def __init__(self, executor: Any, on_news: Callable[[], None]) -> None:
        self._executor = executor
        self._on_news = on_news
        self._responses: SimpleQueue[Any] = SimpleQueue()
        self._fault: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="collector", daemon=True)
        self._thread.start()

    def take(self) -> list[Any]:
        """The responses that have come, in their order. Raises ExecutorFault once the executor gives none any more."""
        taken = []
        while True:
            try:
                taken.append(self._responses.get_nowait())
            except Empty:
                break
        if self._fault is not None and not taken:
            raise ExecutorFault(f"the executor has ended: {self._fault}") from self._fault
        return taken

    def close(self) -> None:
        """Before the executor is shut down: to await one that is, is an error."""
        self._closing.set()
        self._thread.join()

    def _collect(self) -> None:
        while not self._closing.is_set():
            try:
                responses = self._executor.await_responses(timeout=_AWAIT)
            except RuntimeError as exc:
                self._fault = exc
                self._on_news()
                return
            for response in responses:
                self._responses.put(response)
            if responses:
                self._on_news()
