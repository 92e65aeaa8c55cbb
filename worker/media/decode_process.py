"""The process that forks decoders: a medium that is too slow, too big or deadly for its decoder costs that one alone,
and another is there at once. Started by `worker.media.decoders` as `python -m worker.media.decode_process <fd>`.

Over the socket `fd` come connections, one per decoder: it reads works from it, one after the other, and writes what
comes of each. The kernel ends it when a work has used up its processor time; this process then says so in its place.
"""

import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import msgspec

from worker.engine_child import PR_SET_PDEATHSIG
from worker.media.errors import MediaCode, MediaRefused, VideoCode
from worker.media.work import Frames, Pieces, Result, Size, Work, perform

_LENGTH = 8
_INSTANT = struct.Struct("d")
SLOW_S = 1.0
"""Work that takes longer makes its decoder yield to others, for ever: such a one is not used again."""
_SLOWED_BY = 5
_BYTES_PER_PIXEL = 48
_SPARE_BYTES = 1 << 29
_LIBC = ctypes.CDLL(None, use_errno=True)


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """A MediaRefused."""

    code: str
    message: str
    of_video: bool

    @classmethod
    def of(cls, exc: MediaRefused) -> "Refusal":
        return cls(exc.code, str(exc), isinstance(exc.media_code, VideoCode))

    def error(self) -> MediaRefused:
        return MediaRefused(VideoCode(self.code) if self.of_video else MediaCode(self.code), self.message)


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The decoder has ended without an answer: its exit status, or less than 0 the signal that ended it."""

    status: int


Answer: TypeAlias = Size | Frames | Pieces | Refusal | Ended

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Work)


def send(connection: socket.socket, message: Work | Result | Refusal | Ended) -> None:
    """A big-endian uint64 of the body's length, then the msgpack body. Raises OSError."""
    body = _encoder.encode(message)
    connection.sendall(len(body).to_bytes(_LENGTH, "big"))
    connection.sendall(body)


def receive(connection: socket.socket) -> memoryview:
    """One body. Raises EOFError when the other side ends before its end, OSError."""
    length = int.from_bytes(_exactly(connection, _LENGTH), "big")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> memoryview:
    whole = memoryview(bytearray(count))
    rest = whole
    while rest:
        read = connection.recv_into(rest)
        if not read:
            raise EOFError("the other side has ended")
        rest = rest[read:]
    return whole


@dataclass(slots=True)
class _Child:
    pid: int
    connection: socket.socket
    begun: mmap.mmap
    """When its work began, by the monotonic clock; 0 while it has none. The child writes it."""
    slowed: bool = False


class _Forker:
    """`control` gives connections; its end ends this process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, _Child] = {}
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)

    def run(self) -> None:
        while True:
            for fd, _ in self._poller.poll(SLOW_S * 1000 if self._children else None):
                if fd != self._control.fileno():
                    self._bury(fd)
                elif not self._take():
                    return
            self._slow_down()

    def _take(self) -> bool:
        try:
            _, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        except ConnectionError:
            return False
        if not fds:
            return False
        connection = socket.socket(fileno=fds[0])
        parent, begun = os.getpid(), mmap.mmap(-1, _INSTANT.size)
        pid = os.fork()
        if pid == 0:
            self._become(connection, parent, begun)
        child = os.pidfd_open(pid)
        self._children[child] = _Child(pid, connection, begun)
        self._poller.register(child, select.POLLIN)
        return True

    def _become(self, connection: socket.socket, parent: int, begun: mmap.mmap) -> NoReturn:
        """In the child. Connections of others would stay open through this one."""
        status = 1
        try:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # Nobody handles it: it ends the process wherever that is.
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            self._control.close()
            for child in self._children.values():
                child.connection.close()
            while os.getppid() == parent:
                _serve(connection, begun)
            status = 0
        except (ConnectionError, EOFError):
            # Whoever asked has gone.
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)

    def _bury(self, fd: int) -> None:
        child = self._children.pop(fd)
        self._poller.unregister(fd)
        os.close(fd)
        child.begun.close()
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        with child.connection, suppress(OSError):
            if status:
                child.connection.settimeout(SLOW_S)
                send(child.connection, Ended(status))

    def _slow_down(self) -> None:
        """What takes long lets pictures of the usual kind pass."""
        for child in self._children.values():
            (begun,) = _INSTANT.unpack(child.begun[:])
            if not child.slowed and begun and time.monotonic() - begun > SLOW_S:
                child.slowed = True
                os.setpriority(os.PRIO_PROCESS, child.pid, os.getpriority(os.PRIO_PROCESS, 0) + _SLOWED_BY)


def _serve(connection: socket.socket, begun: mmap.mmap) -> None:
    """One work. Raises EOFError when there are no more."""
    work = _decoder.decode(receive(connection))
    begun[:] = _INSTANT.pack(time.monotonic())
    # Processor time: a busy machine makes no picture slower.
    signal.setitimer(signal.ITIMER_PROF, work.limits.decode_s)
    room = _mapped() + _SPARE_BYTES + _BYTES_PER_PIXEL * work.limits.max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
    answer: Result | Refusal
    try:
        answer = perform(work)
    except MediaRefused as exc:
        answer = Refusal.of(exc)
    signal.setitimer(signal.ITIMER_PROF, 0)
    begun[:] = _INSTANT.pack(0.0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    send(connection, answer)


def _mapped() -> int:
    """Bytes of address space that this process has."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123  # a child starts no more than it needs
        return int(statm.read().split()[0]) * resource.getpagesize()


def main(fd: int) -> None:
    # Pillow warns of odd files, which are none of the operator's business.
    warnings.simplefilter("ignore")
    gc.freeze()
    with socket.socket(fileno=fd) as control:
        _Forker(control).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
