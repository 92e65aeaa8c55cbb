"""A network backend that connects only where somebody else's URL may lead us, and never past a deadline.

A name is resolved once; if any answer is not public, nothing is connected; else the connection goes to one of exactly
those addresses, so that a name cannot change its mind in between. TLS, SNI and `Host` stay with the name.

HostRefused          nothing was connected, and asking again would not help
├── AddressRefused   the port, or an address of the host, may not be connected to
└── HostUnknown      the host does not exist
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Self

import httpcore2

from jobs.address import is_public
from jobs.errors import VlmqError

_LOOK_S = 1.0


class HostRefused(VlmqError):
    """Of a URL whose host is not connected to, now or later."""


class AddressRefused(HostRefused):
    """The port or an address is not one that may be connected to."""


class HostUnknown(HostRefused):
    """No such host."""


Resolver = Callable[[str, int], list[str]]
"""Host and port to the addresses of the host; raises OSError."""


def system_resolver(host: str, port: int) -> list[str]:
    """What the operating system says, in its order."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Deadline:
    """A point in time that every wait of one exchange is cut to; it comes early when nobody wants the answer."""

    def __init__(self, seconds: float, unwanted: Callable[[], bool] = lambda: False) -> None:
        self._end = time.monotonic() + seconds
        self._unwanted = unwanted

    def cut(self, timeout: float | None) -> float:
        """Raises ReadTimeout when nothing is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the time for the whole exchange is over")
        if self._unwanted():
            raise httpcore2.ReadTimeout("nobody waits for it any more")
        return left if timeout is None else min(timeout, left)


@dataclass(frozen=True, slots=True)
class HostRule:
    """Where a URL may lead: public addresses on some ports, and what the operator trusts by name."""

    ports: frozenset[int]
    trusted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, ports: Iterable[str], trusted: Iterable[str]) -> Self:
        return cls(frozenset(int(port) for port in ports), frozenset(name.lower() for name in trusted))

    def trusts(self, host: str, port: int) -> bool:
        return host.lower() in self.trusted or f"{host.lower()}:{port}" in self.trusted

    def check_port(self, host: str, port: int) -> None:
        if port not in self.ports and not self.trusts(host, port):
            allowed = ", ".join(str(p) for p in sorted(self.ports))
            raise AddressRefused(f"port {port} of {host!r} is not allowed; allowed: {allowed}")

    def check_addresses(self, host: str, port: int, addresses: list[str]) -> None:
        if not self.trusts(host, port) and not all(is_public(address) for address in addresses):
            raise AddressRefused(f"host {host!r} is not on the public Internet")


class PinnedBackend(httpcore2.NetworkBackend):
    """Serves one exchange, redirects included. Connecting raises HostRefused, or httpcore2's errors."""

    def __init__(self, rule: HostRule, deadline: Deadline, resolve: Resolver) -> None:
        self._rule = rule
        self._deadline = deadline
        self._resolve = resolve
        self._tcp = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        self._rule.check_port(host, port)
        addresses = look_up(self._resolve, host, port, self._deadline.cut(timeout))
        self._rule.check_addresses(host, port, addresses)
        failure: Exception = httpcore2.ConnectError(f"host {host!r} has no address")
        for address in addresses:
            try:
                stream = self._tcp.connect_tcp(address, port, self._deadline.cut(timeout))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                failure = exc
            else:
                return _BoundedStream(stream, self._deadline)
        raise failure


def look_up(resolve: Resolver, host: str, port: int, timeout: float) -> list[str]:
    """The addresses of a host. On a thread of its own: the system's resolver has no timeout that we could set. Raises
    HostUnknown; ConnectError and ConnectTimeout while nobody can tell."""
    answer: Future[list[str]] = Future()

    def ask() -> None:
        try:
            answer.set_result(resolve(host, port))
        except (OSError, UnicodeError) as exc:
            answer.set_exception(exc)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        return answer.result(timeout)
    except TimeoutError as exc:
        raise httpcore2.ConnectTimeout(f"resolving {host!r} took longer than {timeout:.0f} s") from exc
    except UnicodeError as exc:
        raise AddressRefused(f"{host!r} is no host name") from exc
    except socket.gaierror as exc:
        if exc.errno == socket.EAI_AGAIN:
            raise httpcore2.ConnectError(f"{host!r} cannot be resolved now") from exc
        raise HostUnknown(f"host {host!r} does not exist") from exc
    except OSError as exc:
        raise httpcore2.ConnectError(f"{host!r} cannot be resolved now: {exc}") from exc


class _BoundedStream(httpcore2.NetworkStream):
    """A stream whose every wait also ends at the deadline, so that a host cannot drip bytes for ever."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """In pieces of time, between which it is seen whether somebody still waits."""
        left = self._deadline.cut(timeout)
        while True:
            piece = min(left, _LOOK_S)
            try:
                return self._stream.read(max_bytes, self._deadline.cut(piece))
            except httpcore2.ReadTimeout:
                left -= piece
                if left <= 0:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout))
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
