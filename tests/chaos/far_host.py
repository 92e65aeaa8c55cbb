"""Host b: how what runs there reaches the services, and how that is cut.

In a network namespace of its own where the machine allows one: TCP that the kernel drops. Elsewhere over unix sockets
that hold the bytes back.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cli.postgres import SOCKET_NAME as POSTGRES_SOCKET
from cli.services import DATABASE, Services
from cli.valkey import SOCKET_NAME as VALKEY_SOCKET
from tests.chaos.namespace import Namespace, NoNamespace
from tests.chaos.wire import Dial, Direction, Network, Wire

LOOPBACK = "127.0.0.1"


class FarHost(Protocol):
    database_url: str
    redis_url: str
    what: str
    """What its network is made of."""

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that is to run there."""
        ...

    def let_in(self, port: int) -> None:
        """What connects to this port on loopback here reaches it there; it is never cut."""
        ...

    def let_out(self, port: int) -> None:
        """And the other way round."""
        ...

    def cut(self, direction: Direction) -> None:
        """Between the host and the services."""
        ...

    def heal(self) -> None: ...


@contextlib.contextmanager
def broken(host: FarHost, direction: Direction) -> Iterator[None]:
    host.cut(direction)
    try:
        yield
    finally:
        host.heal()


@contextlib.contextmanager
def far_host(services: Services, network: Network) -> Iterator[FarHost]:
    try:
        namespace = Namespace()
    except NoNamespace as exc:
        yield Wired.to(services, network, f"socket proxy (no network namespace: {exc})")
        return
    with contextlib.closing(namespace):
        yield Apart(services, network, namespace)


@dataclass
class Wired:
    """On this host, with the services behind wires."""

    database_url: str
    redis_url: str
    what: str
    network: Network
    wires: tuple[Wire, ...]

    @classmethod
    def to(cls, services: Services, network: Network, what: str) -> "Wired":
        # Beside their own sockets, whose path is short enough for one.
        folder = services.postgres.sockets.parent / "b"
        folder.mkdir(parents=True, exist_ok=True)
        wires = tuple(
            network.wire(_unix(folder / target.name), _to_unix(target))
            for target in (services.postgres.sockets / POSTGRES_SOCKET, services.valkey.sockets / VALKEY_SOCKET)
        )
        database_url = f"postgresql://postgres@/{DATABASE}?host={folder}"
        return cls(database_url, f"unix://{folder / VALKEY_SOCKET}", what, network, wires)

    @property
    def enter(self) -> tuple[str, ...]:
        return ()

    def let_in(self, port: int) -> None:
        """It listens here anyway."""

    def let_out(self, port: int) -> None:
        """It reaches that anyway."""

    def cut(self, direction: Direction) -> None:
        for wire in self.wires:
            self.network.cut(wire, direction)

    def heal(self) -> None:
        for wire in self.wires:
            self.network.heal(wire)


class Apart:
    """In a network namespace: the services listen at this end of its cable."""

    what = "network namespace"

    def __init__(self, services: Services, network: Network, namespace: Namespace) -> None:
        self._network = network
        self._namespace = namespace
        postgres, valkey = (
            self._offered(target)
            for target in (services.postgres.sockets / POSTGRES_SOCKET, services.valkey.sockets / VALKEY_SOCKET)
        )
        self.database_url = f"postgresql://postgres@{namespace.near}:{postgres}/{DATABASE}?sslmode=disable"
        self.redis_url = f"redis://{namespace.near}:{valkey}"

    @property
    def enter(self) -> tuple[str, ...]:
        return self._namespace.enter

    def let_in(self, port: int) -> None:
        async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            made = await asyncio.to_thread(self._namespace.inside, socket.socket)
            made.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(made, (LOOPBACK, port))
            except OSError:
                made.close()
                raise
            return await asyncio.open_connection(sock=made)

        self._network.wire(_tcp(LOOPBACK, port), dial)

    def let_out(self, port: int) -> None:
        listener = self._namespace.inside(lambda: _tcp(LOOPBACK, port))
        self._network.wire(listener, lambda: asyncio.open_connection(LOOPBACK, port))

    def cut(self, direction: Direction) -> None:
        self._namespace.cut(direction)

    def heal(self) -> None:
        self._namespace.heal()

    def _offered(self, target: Path) -> int:
        listener = _tcp(self._namespace.near, 0)
        self._network.wire(listener, _to_unix(target))
        return int(listener.getsockname()[1])


def _to_unix(target: Path) -> Dial:
    return lambda: asyncio.open_unix_connection(target)


def _unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    return made


def _tcp(address: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    return made
