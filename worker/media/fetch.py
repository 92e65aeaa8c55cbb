"""Fetches one file over http or https: pinned addresses, redirects by hand, bounded bytes and time.

Proxies named in the environment are not used: they would decide where a request goes.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import httpcore2
import httpx2

from jobs.network import AddressRefused, Deadline, HostRule, HostUnknown, PinnedBackend, Resolver, system_resolver
from worker.errors import MediaUnavailable
from worker.media.errors import MediaCode, MediaRefused

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429})
_HEADERS = [
    ("User-Agent", "vlmq"),
    ("Accept", "image/*, video/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    max_bytes: int
    max_redirects: int
    connect_s: float
    read_s: float
    total_s: float


def host_of(url: str) -> str | None:
    """Which host a URL asks first, however its name is written; None where it is no URL of a host, or none at all."""
    try:
        target = httpx2.URL(url)
    except httpx2.InvalidURL:
        return None
    return target.host.rstrip(".") or None if target.scheme in _PORTS else None


class Fetcher:
    """Thread-safe. Each fetch has connections of its own."""

    def __init__(self, rule: HostRule, limits: FetchLimits, resolve: Resolver = system_resolver) -> None:
        self._rule = rule
        self._limits = limits
        self._resolve = resolve
        self._tls = ssl.create_default_context()

    def fetch(self, url: str, unwanted: Callable[[], bool] = lambda: False) -> bytes:
        """Raises MediaRefused for what will not change, MediaUnavailable for what may (5xx, silence), and soon after
        it is `unwanted`."""
        try:
            return self._follow(url, Deadline(self._limits.total_s, unwanted))
        except AddressRefused as exc:
            raise MediaRefused(MediaCode.INVALID_URL, str(exc)) from exc
        except HostUnknown as exc:
            raise MediaRefused(MediaCode.DOWNLOAD_FAILED, str(exc)) from exc

    def _follow(self, url: str, deadline: Deadline) -> bytes:
        backend = PinnedBackend(self._rule, deadline, self._resolve)
        with httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool:
            for _ in range(self._limits.max_redirects + 1):
                target = self._checked(url)
                answer = self._get(pool, target)
                if isinstance(answer, bytes):
                    return answer
                url = self._joined(target, answer)
        raise MediaRefused(
            MediaCode.DOWNLOAD_FAILED, f"more than {self._limits.max_redirects} redirects, the last to {url!r}"
        )

    def _checked(self, url: str) -> httpx2.URL:
        try:
            target = httpx2.URL(url)
        except httpx2.InvalidURL as exc:
            raise MediaRefused(MediaCode.INVALID_URL, f"URL {url!r}: {exc}") from exc
        if target.scheme not in _PORTS or not target.host:
            raise MediaRefused(MediaCode.INVALID_URL, f"URL {url!r} is not http://host/… or https://host/…")
        if target.userinfo:
            raise MediaRefused(MediaCode.INVALID_URL, f"a URL with a user name at {target.host!r} is not accepted")
        self._rule.check_port(target.host, target.port or _PORTS[target.scheme])
        return target

    @staticmethod
    def _joined(base: httpx2.URL, location: str) -> str:
        try:
            return str(base.join(location))
        except httpx2.InvalidURL as exc:
            raise MediaRefused(
                MediaCode.INVALID_URL, f"{_place(base)} redirects to {location!r}, which is no URL"
            ) from exc

    def _get(self, pool: httpcore2.ConnectionPool, target: httpx2.URL) -> bytes | str:
        """The body, or where a redirect points."""
        limits = self._limits
        timeouts = {"connect": limits.connect_s, "read": limits.read_s, "write": limits.read_s, "pool": limits.total_s}
        request = httpcore2.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        try:
            with pool.stream("GET", request, headers=_HEADERS, extensions={"timeout": timeouts}) as response:
                return self._take(response, target)
        except httpcore2.TimeoutException as exc:
            raise MediaUnavailable(f"{_place(target)} did not answer in time: {exc}") from exc
        except httpcore2.NetworkError as exc:
            if isinstance(exc.__cause__, ssl.SSLError) or isinstance(exc.__context__, ssl.SSLError):
                raise MediaRefused(MediaCode.DOWNLOAD_FAILED, f"TLS with {_place(target)} failed: {exc}") from exc
            raise MediaUnavailable(f"{_place(target)} cannot be reached: {exc}") from exc
        except httpcore2.RemoteProtocolError as exc:
            raise MediaUnavailable(f"{_place(target)} broke off: {exc}") from exc
        except httpcore2.LocalProtocolError as exc:
            raise MediaRefused(MediaCode.INVALID_URL, f"URL {str(target)!r}: {exc}") from exc

    def _take(self, response: httpcore2.Response, target: httpx2.URL) -> bytes | str:
        headers = {name.lower(): value for name, value in response.headers}
        status = response.status
        if status in _REDIRECTS and b"location" in headers:
            return headers[b"location"].decode("latin-1")
        if status >= 500 or status in _TRY_AGAIN:
            raise MediaUnavailable(f"{_place(target)} answered {status}")
        if status != 200:
            raise MediaRefused(MediaCode.DOWNLOAD_FAILED, f"{_place(target)} answered {status}")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            encoding = headers[b"content-encoding"].decode("latin-1")
            raise MediaRefused(MediaCode.DOWNLOAD_FAILED, f"{_place(target)} sent Content-Encoding {encoding!r}")
        return self._read(response, headers.get(b"content-length", b""), target)

    def _read(self, response: httpcore2.Response, length: bytes, target: httpx2.URL) -> bytes:
        limit = self._limits.max_bytes
        if length.isdigit() and int(length) > limit:
            raise self._too_large(target)
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > limit:
                raise self._too_large(target)
        return bytes(body)

    def _too_large(self, target: httpx2.URL) -> MediaRefused:
        return MediaRefused(
            MediaCode.FILE_TOO_LARGE, f"the file at {_place(target)} has more than {self._limits.max_bytes} bytes"
        )


def _place(target: httpx2.URL) -> str:
    """Host and port, for messages."""
    return repr(target.netloc.decode("ascii"))
