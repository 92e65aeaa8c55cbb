"""Signals that ask us to stop, as a count: once is a request, twice is an order, three times ends us on the spot."""

import os
import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles the signals while the context lasts. Nothing is raised: whoever works looks when it may be stopped."""

    def __init__(self) -> None:
        self._count = 0
        self._asked = threading.Event()
        self._before: dict[signal.Signals, object] = {}

    @property
    def asked(self) -> bool:
        return self._count >= 1

    @property
    def forced(self) -> bool:
        return self._count >= 2

    def wait(self, timeout_s: float) -> bool:
        """Sleeps, but not past the first signal. Whether one has come."""
        return self._asked.wait(timeout_s)

    def __enter__(self) -> "Interrupts":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self._asked.set()
        if self._count >= 3:
            os._exit(128 + number)
