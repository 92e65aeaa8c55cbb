"""Sends one event to one URL, once: pinned addresses, no redirects, no proxy, bounded bytes and time.

What comes back is a status and a reason. The answer's body is read to a small bound and thrown away.
"""

import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore2
import httpx2

from jobs.network import Deadline, HostRefused, PinnedBackend
from jobs.webhooks.delivery import Answer
from jobs.webhooks.destination import DestinationRefused, Destinations
from jobs.webhooks.event import Event
from jobs.webhooks.signature import signed_headers

MOST_ANSWER_BYTES = 16 * 1024
USER_AGENT = "vlmq (webhooks)"


class Sender:
    """Thread-safe. Each try has a connection of its own."""

    def __init__(self, destinations: Destinations, timeout_s: float) -> None:
        self._destinations = destinations
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context()

    def send(self, url: str, event: Event, keys: Sequence[str]) -> Answer:
        """Signs for now and posts. Whatever goes wrong is an Answer without a status."""
        body = event.payload()
        headers = signed_headers(event.id, int(time.time()), body, keys)
        try:
            target = self._destinations.parse(url)
            return self._post(target, headers, body)
        except (DestinationRefused, HostRefused) as exc:
            return Answer(None, str(exc))
        except httpcore2.TimeoutException as exc:
            return Answer(None, f"no answer in time: {exc}")
        except httpcore2.NetworkError as exc:
            return Answer(None, f"cannot be reached: {exc}")
        except httpcore2.ProtocolError as exc:
            return Answer(None, f"broke off: {exc}")

    def _post(self, target: httpx2.URL, headers: dict[str, str], body: bytes) -> Answer:
        deadline = Deadline(self._timeout_s)
        backend = PinnedBackend(self._destinations.rule, deadline, self._destinations.resolve)
        request = httpcore2.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        fixed = {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        with (
            httpcore2.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream(
                "POST", request, headers=[*(fixed | headers).items()], content=body, extensions={"timeout": timeouts}
            ) as response,
        ):
            return _answer_of(response)


def _answer_of(response: httpcore2.Response) -> Answer:
    status = response.status
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    retry_after_s = _seconds(headers.get(b"retry-after", ""))
    try:
        _skip(response)
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as exc:
        return Answer(status, f"answered {status} and broke off: {exc}", retry_after_s, whole=False)
    if 200 <= status < 300:
        return Answer(status)
    why = "; redirects are not followed" if 300 <= status < 400 else ""
    return Answer(status, f"answered {status}{why}", retry_after_s)


def _skip(response: httpcore2.Response) -> None:
    """To the answer's end, so that one that is cut short is noticed; or to the bound."""
    size = 0
    for chunk in response.iter_stream():
        size += len(chunk)
        if size > MOST_ANSWER_BYTES:
            return


def _seconds(retry_after: str) -> float | None:
    """From now, of a Retry-After in seconds or as a date; None for anything else."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        instant = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return max(0.0, (instant - datetime.now(UTC)).total_seconds())
