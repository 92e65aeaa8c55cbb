"""Responses on their way to whoever awaits them."""

import threading
from collections import defaultdict

from tensorrt_llm.bindings.executor.response import Response


class Mailbox:
    """Awaiting without an id takes everybody's. An id whose last response was taken is forgotten: to await it again
    gives an error."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: defaultdict[int, list[Response]] = defaultdict(list)
        self._last: set[int] = set()
        self._alive: set[int] = set()
        self._closed = ""

    def open(self, request_id: int) -> None:
        with self._changed:
            self._alive.add(request_id)

    def put(self, response: Response, last: bool) -> None:
        with self._changed:
            self._waiting[response.request_id].append(response)
            if last:
                self._last.add(response.request_id)
            self._changed.notify_all()

    def wait_for_one(self, request_id: int, timeout_s: float) -> None:
        """Until a response of this request has come, taken or not."""
        with self._changed:
            seen = lambda: self._waiting.get(request_id) or request_id not in self._alive  # noqa: E731
            self._changed.wait_for(seen, timeout_s)

    def take_all(self, timeout_s: float | None) -> list[Response]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout_s)
            self._check_open()
            return [response for request_id in list(self._waiting) for response in self._take(request_id)]

    def take(self, request_id: int, timeout_s: float | None) -> list[Response]:
        with self._changed:
            if request_id not in self._alive:
                message = f"ReqId {request_id} has already been processed and was terminated."
                return [Response(request_id, None, message)]
            self._changed.wait_for(lambda: request_id in self._waiting or self._closed, timeout_s)
            self._check_open()
            return self._take(request_id)

    def ready(self, request_id: int | None) -> int:
        with self._changed:
            self._check_open()
            if request_id is not None:
                return len(self._waiting.get(request_id, ()))
            return sum(map(len, self._waiting.values()))

    def close(self, why: str) -> None:
        with self._changed:
            self._closed = self._closed or why
            self._changed.notify_all()

    def check_open(self) -> None:
        with self._changed:
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(self._closed)

    def _take(self, request_id: int) -> list[Response]:
        taken = self._waiting.pop(request_id, [])
        if request_id in self._last:
            self._last.discard(request_id)
            self._alive.discard(request_id)
        self._changed.notify_all()
        return taken
