"""Has media decoded by a process that nothing which is in them can harm (`worker.media.decode_process`)."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

import msgspec

from worker.errors import MediaUnavailable
from worker.media.decode_process import SLOW_S, Answer, Ended, Refusal, receive, send
from worker.media.work import Result, Work, crashed, too_slow
from worker.settings import decoder_environment

_TRIES = 2
_WORKS = 64
"""Of one decoder: then another takes its place, whatever became of it meanwhile."""
_KEPT = os.cpu_count() or 1
_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_PATIENCE = 30
"""Times its processor time that one medium may take in all, on a machine that is busy."""


class Decoding(Protocol):
    """Thread-safe. `ask` raises MediaRefused for what is wrong with the medium, MediaUnavailable for what is not."""

    def ask(self, work: Work) -> Result: ...

    def close(self) -> None: ...


class _Lost(Exception):
    """The process is gone or does not answer, which says nothing about the medium."""


@dataclass(slots=True)
class _Line:
    """A connection to one decoder of a process; one work at a time."""

    connection: socket.socket
    process: subprocess.Popen[bytes]
    works: int = 0

    def ask(self, work: Work) -> Answer:
        """Raises OSError, EOFError, MsgspecError."""
        self.connection.settimeout(_PATIENCE * work.limits.decode_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # What a decoder died of is still to be read.
            send(self.connection, work)
        return _decoder.decode(receive(self.connection))


class Decoders:
    """One process, which forks decoders, as many as there are works at once; some are kept for later works. Started
    when it is first needed, and again when it is lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._idle: list[_Line] = []
        self._closed = False

    def start(self) -> None:
        """Now, so that no picture waits for it."""
        with self._lock:
            self._running()

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def ask(self, work: Work) -> Result:
        detail = ""
        for _ in range(_TRIES):
            try:
                answer = self._asked(work)
            except _Lost as exc:
                detail = str(exc)
                continue
            if isinstance(answer, Refusal):
                raise answer.error()
            if not isinstance(answer, Ended):
                return answer
            if answer.status == -signal.SIGPROF:
                raise too_slow(work)
            detail = f"its decoder ended by {_name_of(answer.status)}"
            # That is what a machine without memory sends, and whoever stops processes.
            if answer.status != -signal.SIGKILL:
                raise crashed(work, detail)
        raise MediaUnavailable(f"the image or video could not be decoded now: {detail}")

    def close(self) -> None:
        """What is being decoded is not; nothing more is."""
        with self._lock:
            self._closed = True
            self._end()

    def _asked(self, work: Work) -> Answer:
        line = self._line()
        begun = time.monotonic()
        try:
            answer = line.ask(work)
        except TimeoutError as exc:
            # Its own time is bounded by the kernel: it, or the machine, stands still.
            line.connection.close()
            raise MediaUnavailable(f"the image or video could not be decoded now: {exc}") from exc
        except (OSError, EOFError, msgspec.MsgspecError) as exc:
            line.connection.close()
            self._lose(line.process)
            raise _Lost(f"its process is lost: {exc or type(exc).__name__}") from exc
        self._put_back(line, usable=not isinstance(answer, Ended) and time.monotonic() - begun < SLOW_S)
        return answer

    def _line(self) -> "_Line":
        """To a decoder that does nothing, perhaps a new one."""
        with self._lock:
            process, control = self._running()
            if self._idle:
                return self._idle.pop()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(control, [b"."], [theirs.fileno()])
                except OSError as exc:
                    ours.close()
                    self._end()
                    raise _Lost(f"its process is lost: {exc}") from exc
            return _Line(ours, process)

    def _put_back(self, line: "_Line", usable: bool) -> None:
        line.works += 1
        with self._lock:
            if usable and line.works < _WORKS and len(self._idle) < _KEPT and line.process is self._process:
                self._idle.append(line)
            else:
                line.connection.close()

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Under the lock."""
        if self._closed:
            raise _Lost("this process ends")
        if self._process is not None and self._control is not None and self._process.poll() is None:
            return self._process, self._control
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.media.decode_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=decoder_environment(),
                stdin=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the worker, whose jobs may still need pictures while it drains.
                process_group=0,
            )
        self._control = ours
        return self._process, ours

    def _lose(self, process: subprocess.Popen[bytes]) -> None:
        """A process that is dead is replaced; its children have ended with it."""
        with self._lock:
            if self._process is process and process.poll() is not None:
                self._end()

    def _end(self) -> None:
        """Under the lock."""
        for line in self._idle:
            line.connection.close()
        self._idle.clear()
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None


def _name_of(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
