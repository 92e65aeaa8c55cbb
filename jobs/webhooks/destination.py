"""Which URLs webhooks may go to. Knows no tenants and sends nothing.

https on few ports to public addresses; what the operator allows by name may also be http, private, or on another port.
The address is checked when a URL comes in, so that its owner hears of it, and again whenever it is connected to.
"""

import threading
import time

import httpcore2
import httpx2

from jobs.errors import VlmqError
from jobs.network import HostRefused, HostRule, Resolver, look_up, system_resolver
from jobs.webhooks.settings import WebhookSettings

PORTS = {"http": 80, "https": 443}
LONGEST_URL = 2048
LOOK_UP_S = 2.0
TRUSTED_S = 60.0
"""How long a host that was found good is not looked up again: thousands of jobs may name the same one."""
MOST_TRUSTED = 10_000
MOST_LOOK_UPS = 4
"""At once: a host whose names are slow to find must not take the threads that all requests share."""


class DestinationRefused(VlmqError):
    """No webhook may go to the URL; the message says why."""


class Destinations:
    """Thread-safe."""

    def __init__(self, rule: HostRule, resolve: Resolver = system_resolver) -> None:
        self.rule = rule
        self.resolve = resolve
        self._lock = threading.Lock()
        self._good: dict[tuple[str, int], float] = {}
        self._look_ups = threading.BoundedSemaphore(MOST_LOOK_UPS)

    @classmethod
    def of(cls, settings: WebhookSettings) -> "Destinations":
        return cls(HostRule.of(settings.ports, settings.allowed_hosts))

    def parse(self, url: str) -> httpx2.URL:
        """The URL without a look at its host's addresses. Raises DestinationRefused."""
        if len(url) > LONGEST_URL:
            raise DestinationRefused(f"a webhook URL has at most {LONGEST_URL} characters, this one {len(url)}")
        try:
            target = httpx2.URL(url)
        except httpx2.InvalidURL as exc:
            raise DestinationRefused(f"{url[:100]!r} is no URL: {exc}") from exc
        if target.scheme not in PORTS or not target.host:
            raise DestinationRefused(f"{url[:100]!r} is not https://host/…")
        if target.userinfo or target.fragment:
            raise DestinationRefused("a webhook URL has neither a user name nor a fragment")
        port = target.port or PORTS[target.scheme]
        if target.scheme == "http" and not self.rule.trusts(target.host, port):
            raise DestinationRefused(f"{url[:100]!r} is not https, which the host {target.host[:100]!r} must have")
        try:
            self.rule.check_port(target.host, port)
        except HostRefused as exc:
            raise DestinationRefused(str(exc)) from exc
        return target

    def check(self, url: str) -> None:
        """Raises DestinationRefused, also when the host is private or does not exist. A name that cannot be resolved
        now, or while too many are being looked up, passes: it is checked again before anything is connected."""
        target = self.parse(url)
        host, port = target.raw_host.decode("ascii"), target.port or PORTS[target.scheme]
        if self.rule.trusts(host, port) or self._known(host, port):
            return
        if not self._look_ups.acquire(blocking=False):
            return
        try:
            self.rule.check_addresses(host, port, look_up(self._resolve_once, host, port, LOOK_UP_S))
        except HostRefused as exc:
            raise DestinationRefused(str(exc)) from exc
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
            return
        with self._lock:
            if len(self._good) >= MOST_TRUSTED:
                self._good.clear()
            self._good[host, port] = time.monotonic() + TRUSTED_S

    def _resolve_once(self, host: str, port: int) -> list[str]:
        """On the resolver's own thread, which may outlast whoever waits for it."""
        try:
            return self.resolve(host, port)
        finally:
            self._look_ups.release()

    def _known(self, host: str, port: int) -> bool:
        return time.monotonic() < self._good.get((host, port), 0.0)
