"""A client that does not give up: it repeats what failed with the same idempotency key, and reads streams again from
where they broke off. What it may not see, it writes down as a complaint."""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

PATIENCE_S = 240.0
"""After that a client says that its answer never came."""
TERMINAL = ("completed", "incomplete", "failed", "cancelled")


class GaveUp(Exception):
    """Nothing came within PATIENCE_S."""


@dataclass
class Seen:
    """What one operation's client was told."""

    operation: str
    request: str
    expected: frozenset[str]
    """The states that its job may end in."""
    job_ids: set[str] = field(default_factory=set)
    states: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Whole answers, however they were read."""
    partial_texts: list[str] = field(default_factory=list)
    """Answers of which only a beginning may have come."""
    complaints: list[str] = field(default_factory=list)
    retries: int = 0

    def complain(self, what: str) -> None:
        self.complaints.append(f"{self.operation} {self.request} {sorted(self.job_ids)}: {what}")


class Client:
    """One thread's. Each call goes to one of the API processes, whichever the dice say."""

    def __init__(self, urls: list[str], dice: random.Random, stop: Callable[[], bool]) -> None:
        self._urls = urls
        self._dice = dice
        self.stopped = stop
        self._http = httpx2.Client(timeout=httpx2.Timeout(30, connect=3))

    def close(self) -> None:
        self._http.close()

    def key(self) -> str:
        """A new idempotency key, the same in each run of a seed."""
        return f"{self._dice.getrandbits(128):032x}"

    def pause(self, longest_s: float = 0.5) -> None:
        time.sleep(self._dice.uniform(0.02, longest_s))

    def call(self, seen: Seen, method: str, path: str, body: Any = None, key: str = "", **more: Any) -> httpx2.Response:
        """Until the answer is one: not a lost connection, 429, 503, or 409 of a request that is still in flight."""
        end = time.monotonic() + PATIENCE_S
        headers = {"idempotency-key": key} if key else {}
        if body is not None:
            more |= {"json": body}
        while time.monotonic() < end and not self.stopped():
            try:
                answer = self._http.request(method, self._url() + path, headers=headers, **more)
            except httpx2.TransportError:
                seen.retries += 1
                self.pause()
                continue
            if not self._again(seen, answer):
                return answer
            seen.retries += 1
            self.pause()
        raise GaveUp(f"{method} {path}: no answer in {PATIENCE_S:.0f} s")

    def follow(self, seen: Seen, path: str, number: str, resume: str, key_of_end: Callable[[Any], bool]) -> list[Any]:
        """Every event of a stream that tells `number` in its data, once and in order, over as many connections as it
        takes. `resume` names the query parameter that says which was last."""
        events: list[Any] = []
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not self.stopped():
            query = f"?{resume}={events[-1][number]}" if events else ""
            joint = "&" if "?" in path else "?"
            try:
                with self._stream(path + query.replace("?", joint, 1)) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        if not self._again(seen, answer):
                            seen.complain(f"the stream answered {answer.status_code}: {answer.text[:300]}")
                            return events
                    else:
                        for event in data_of(answer, lambda: self.stopped() or time.monotonic() > end):
                            if event[number] != len(events):
                                seen.complain(f"event {event[number]} came where {len(events)} was expected")
                                return events
                            events.append(event)
                            if key_of_end(event):
                                return events
                            if self._dice.random() < 0.002:
                                break
            except httpx2.TransportError:
                pass
            seen.retries += 1
            self.pause()
        raise GaveUp(f"{path}: the log did not end; last: {str(events[-1:])[:200]}")

    @contextmanager
    def post_stream(self, path: str, body: Any, key: str) -> Iterator[httpx2.Response]:
        """One try. Raises TransportError."""
        with self._stream(path, "POST", json=body, headers={"idempotency-key": key}) as answer:
            yield answer

    def _stream(self, path: str, method: str = "GET", **more: Any) -> Any:
        return self._http.stream(method, self._url() + path, timeout=httpx2.Timeout(10, read=30), **more)

    def _url(self) -> str:
        return self._dice.choice(self._urls)

    def _again(self, seen: Seen, answer: httpx2.Response) -> bool:
        """Whether the answer says to come again. Anything else that is a server's fault is a complaint."""
        if answer.status_code in (429, 503):
            if "retry-after" not in answer.headers:
                seen.complain(f"{answer.status_code} without Retry-After")
            return True
        if answer.status_code == 409:
            code = answer.json()["error"]["code"]
            return bool(code == "idempotency_key_in_use")
        if answer.status_code >= 500:
            answer.read()
            seen.complain(
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
            )
            return True
        return False


def data_of(answer: httpx2.Response, enough: Callable[[], bool]) -> Iterator[Mapping[str, Any]]:
    """The data of each whole server-sent event but `[DONE]`; what is cut off is none. Of a stream that only keeps
    itself alive one has `enough` some time."""
    data = ""
    for line in answer.iter_lines():
        if enough():
            return
        if line.startswith("data:"):
            data = line[5:].strip()
        elif not line and data:
            if data != "[DONE]":
                yield json.loads(data)
            data = ""
