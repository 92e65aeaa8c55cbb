"""What a child tells its worker while it loads. Knows no engine."""

import contextlib
import threading

from worker.engine.connection import Connection, ConnectionClosed
from worker.engine.messages import Loading

_PULSE_S = 1.0


class Reporter:
    """Sends the progress of loading, a whole per cent at a time, and again each second: what takes long is no silence.
    Inside its block nobody else sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = Loading(0.0, "")
        self._sending = threading.Lock()
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._repeat, name="pulse", daemon=True)

    def __enter__(self) -> "Reporter":
        self._pulse.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pulse.join()

    def __call__(self, done: float, what: str) -> None:
        with self._sending:
            news = int(done * 100) > int(self._last.done * 100) or not self._last.what
            if news:
                self._last = Loading(done, what)
                self._connection.send(self._last)

    def before_silence(self, done: float, what: str) -> None:
        """For what keeps the interpreter, and with it the pulse."""
        with self._sending:
            self._last = Loading(done, what, silent=True)
            self._connection.send(self._last)

    def _repeat(self) -> None:
        # Whoever loads finds out by its own next report that the worker is gone.
        with contextlib.suppress(ConnectionClosed):
            while not self._over.wait(_PULSE_S):
                with self._sending:
                    self._connection.send(self._last)
