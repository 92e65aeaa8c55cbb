"""The engine process's end of the socket: reads and writes without ever blocking on a slow worker.

Both ends may have much to say at once (pictures in, tokens out). A worker that waits for room to send while this side
does the same would hang both; so what cannot be sent now is kept and goes out with a later call.
"""

import select
import socket
import time

from worker.engine.frames import encode, to_engine_decoder
from worker.engine.messages import FromEngine, ToEngine

_READ_BYTES = 1 << 20
_READS_PER_TURN = 64


class ConnectionClosed(Exception):
    """The worker is gone."""


class Connection:
    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._decoder = to_engine_decoder()
        self._unsent = bytearray()
        self._poller = select.poll()

    def send(self, message: FromEngine) -> None:
        """Sends as much as fits now. Raises ConnectionClosed."""
        self._unsent += encode(message)
        self._write()

    def receive(self, wait_s: float) -> list[ToEngine]:
        """Whatever has arrived, after waiting for it at most `wait_s`. Raises ConnectionClosed, and FrameError when
        the worker sent what is no message."""
        ready = self._poll(select.POLLIN, wait_s)
        if ready & select.POLLOUT:
            self._write()
        messages: list[ToEngine] = []
        if ready & ~select.POLLOUT:
            for _ in range(_READS_PER_TURN):
                data = self._read()
                if data is None:
                    break
                messages += self._decoder.feed(data)
        return messages

    def finish(self, timeout_s: float) -> None:
        """Sends what is left, for at most `timeout_s`. Raises ConnectionClosed."""
        until = time.monotonic() + timeout_s
        while self._unsent and (left := until - time.monotonic()) > 0:
            self._poll(0, left)
            self._write()

    def _poll(self, events: int, wait_s: float) -> int:
        self._poller.register(self._socket, events | (select.POLLOUT if self._unsent else 0))
        ready = self._poller.poll(wait_s * 1000)
        return ready[0][1] if ready else 0

    def _read(self) -> bytes | None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise ConnectionClosed(str(exc)) from exc
        if not data:
            raise ConnectionClosed("the worker closed the socket")
        return data

    def _write(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError as exc:
                raise ConnectionClosed(str(exc)) from exc
            del self._unsent[:sent]
