"""One engine process and the socket to it, from start to death. Knows no generations and restarts nothing."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Self

from worker.engine.frames import FrameError, encode, from_engine_decoder
from worker.engine.messages import FromEngine, Stop, ToEngine
from worker.errors import EngineUnavailable
from worker.settings import EngineCommand

_READ_BYTES = 1 << 18
_LOOK_EVERY_S = 0.2


class LinkClosed(Exception):
    """The child has closed the connection or sent what is no message: it is of no more use."""


class EngineLink:
    """A running child. One thread receives; any thread may send, and none waits for a child that does not read: least
    of all the one that receives, which alone notices that the child hangs."""

    def __init__(self, child: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self._child = child
        self._connection = connection
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="engine-writer", daemon=True)
        self._writer.start()
        self._decoder = from_engine_decoder()
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)

    @classmethod
    def start(cls, command: EngineCommand, timeout_s: float) -> Self:
        """Starts the child and waits until it has connected. Raises EngineUnavailable. The folder of the socket is
        open to this user alone and goes once the child has connected."""
        try:
            return cls._start(command, timeout_s)
        except OSError as exc:
            raise EngineUnavailable(f"the engine process cannot be started: {exc}") from exc

    @classmethod
    def _start(cls, command: EngineCommand, timeout_s: float) -> Self:
        folder = Path(tempfile.mkdtemp(prefix="vlmq-engine-"))
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                path = folder / "engine.sock"
                listener.bind(str(path))
                listener.listen(1)
                child = _spawn(command, path)
                try:
                    return cls(child, _accept(listener, child, timeout_s))
                except (EngineUnavailable, OSError):
                    _kill(child)
                    raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, message: ToEngine) -> None:
        """In the order of the calls. A child that no longer takes messages is left to the receiver to notice."""
        self._outbox.put(encode(message))

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (frame := self._outbox.get()) is not None:
                self._connection.sendall(frame)

    def receive(self, wait_s: float) -> Sequence[FromEngine]:
        """The messages that have arrived, possibly none after `wait_s`. Raises LinkClosed."""
        if not self._poller.poll(wait_s * 1000):
            return ()
        try:
            data = self._connection.recv(_READ_BYTES)
            if data:
                return list(self._decoder.feed(data))
        except (OSError, FrameError) as exc:
            raise LinkClosed(str(exc)) from exc
        raise LinkClosed("the connection was closed")

    def kill(self) -> str:
        """Ends the child whatever it does, frees the socket, and says how it ended."""
        # Shutting down first frees the writer, whatever it waits for.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._outbox.put(None)
        how = _kill(self._child)
        self._writer.join()
        self._connection.close()
        return how

    def stop(self, wait_s: float) -> None:
        """Asks the child to exit, then kills it."""
        self.send(Stop())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(wait_s)
        self.kill()


def _spawn(command: EngineCommand, path: Path) -> subprocess.Popen[bytes]:
    tied = [sys.executable, "-m", "worker.engine_child", str(os.getpid())]
    # A group of its own: Ctrl-C in a terminal is for the worker, which still needs its engine to drain.
    return subprocess.Popen(
        [*tied, *command.program(path)], env=command.environment, stdin=subprocess.DEVNULL, process_group=0
    )


def _accept(listener: socket.socket, child: subprocess.Popen[bytes], timeout_s: float) -> socket.socket:
    end = time.monotonic() + timeout_s
    listener.settimeout(_LOOK_EVERY_S)
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            connection.setblocking(True)
            return connection
        if child.poll() is not None:
            raise EngineUnavailable(f"the engine process ended while starting: {_end_of(child)}")
    raise EngineUnavailable(f"the engine process did not connect within {timeout_s:.0f} s")


def _kill(child: subprocess.Popen[bytes]) -> str:
    """Gives a child that is ending by itself a moment, so that its own exit status is seen."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_LOOK_EVERY_S)
    child.kill()
    child.wait()
    return _end_of(child)


def _end_of(child: subprocess.Popen[bytes]) -> str:
    code = child.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
