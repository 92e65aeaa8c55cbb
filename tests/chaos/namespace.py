"""A network namespace of the kernel with one cable to here, whose packets can be lost in one direction.

Needs the right to make one, and the tools of iproute2 and util-linux. Addresses are of 198.18.0.0/15, which is set
aside for testing (RFC 2544). A packet that is to be lost is sent to a station that is not there: no module of the
kernel is needed for it, and nobody is told, which is what a broken network does.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from tests.chaos.wire import Direction
from tests.fixtures.eventually import eventually

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
TOOLS = ("ip", "nsenter", "setpriv", "unshare")
FIRST_ADDRESS = IPv4Address("198.18.0.0")
NETWORKS = 1 << 15
"""Of four addresses each."""
NEAR_STATION, FAR_STATION, NOBODY = (f"02:76:6c:6d:71:{last:02x}" for last in (1, 2, 255))


class NoNamespace(Exception):
    """The machine does not allow one; says why."""


class Namespace:
    """Ends with `close`, or with the process that made it: nothing of it stays behind. Raises NoNamespace."""

    def __init__(self) -> None:
        for tool in TOOLS:
            if shutil.which(tool) is None:
                raise NoNamespace(f"there is no `{tool}` here")
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"], stderr=subprocess.PIPE
        )
        try:
            eventually("the namespace is there", self._is_there)
            self.cable = f"vlmq{self._holder.pid}"
            first = FIRST_ADDRESS + 4 * (self._holder.pid % NETWORKS)
            self.near, self.far = str(first + 1), str(first + 2)
            self._lay()
        except BaseException:
            self.close()
            raise

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to run inside."""
        return ("nsenter", "-t", str(self._holder.pid), "-n")

    def inside(self, make: Callable[[], T]) -> T:
        """What `make` returns inside: a socket belongs to where it was made, whoever uses it."""

        def work() -> T:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path(f"/proc/{self._holder.pid}/ns/net").open("rb") as there:
                if libc.setns(there.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return make()

        # A thread that is there for this alone: whoever enters stays.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(work).result()

    def cut(self, direction: Direction) -> None:
        """`OUT`: nothing that is sent inside arrives here."""
        self._direct(direction, NOBODY)

    def heal(self) -> None:
        self._direct(Direction.OUT, NEAR_STATION)
        self._direct(Direction.BACK, FAR_STATION)

    def close(self) -> None:
        """May be called again."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stderr is not None:
            self._holder.stderr.close()

    def _is_there(self) -> bool:
        if self._holder.poll() is not None:
            assert self._holder.stderr is not None
            raise NoNamespace(self._holder.stderr.read().decode().strip())
        return Path(f"/proc/{self._holder.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()

    def _lay(self) -> None:
        _ip("link", "add", self.cable, "type", "veth", "peer", "name", "services", "netns", str(self._holder.pid))
        for enter, cable, address, station in (
            ((), self.cable, self.near, NEAR_STATION),
            (self.enter, "services", self.far, FAR_STATION),
        ):
            _ip("address", "add", f"{address}/30", "dev", cable, enter=enter)
            _ip("link", "set", cable, "address", station, "up", enter=enter)
        _ip("link", "set", "lo", "up", enter=self.enter)
        self.heal()

    def _direct(self, direction: Direction, station: str) -> None:
        enter, cable, address = (
            (self.enter, "services", self.near) if direction is Direction.OUT else ((), self.cable, self.far)
        )
        _ip("neigh", "replace", address, "lladdr", station, "dev", cable, "nud", "permanent", enter=enter)


def _ip(*words: str, enter: tuple[str, ...] = ()) -> None:
    done = subprocess.run([*enter, "ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespace(f"ip {' '.join(words)}: {done.stderr.strip()}")
