"""The API as the command sees it: submit, look, cancel, follow. Knows HTTP, not terminals."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx2
import msgspec

from cli.errors import CommandError

PATIENCE_S = 60.0
"""How long a broken stream is taken up again without a new event in between."""
TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled"})

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event of a job."""

    sequence: int
    type: str
    data: Json


@dataclass(frozen=True, slots=True)
class Dropped:
    """The connection broke; it is taken up again after the last event that was given."""

    why: str


class Refused(CommandError):
    """The server's answer was an error. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A context manager, which closes its connections. Raises CommandError when the server does not answer, Refused
    when it answers with an error."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(30, connect=5, read=60)
        try:
            self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as exc:
            raise CommandError(f"--url {url!r} is not a URL: {exc}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, body: Json) -> Json:
        return self.json("POST", "/v1/jobs", json=body)

    def job(self, job_id: str) -> Json:
        return self.json("GET", f"/v1/jobs/{quote(job_id, safe='')}")

    def jobs(self, **filters: str | int) -> list[Json]:
        return list(self.json("GET", "/v1/jobs", params=filters)["data"])

    def cancel(self, job_id: str) -> Json:
        return self.json("POST", f"/v1/jobs/{quote(job_id, safe='')}/cancel")

    def requeue(self, job_id: str) -> Json:
        return self.json("POST", f"/v1/jobs/{quote(job_id, safe='')}/requeue")

    def models(self) -> list[Json]:
        return list(self.json("GET", "/v1/models")["data"])

    def events(self, job_id: str) -> Iterator[Event | Dropped]:
        """A job's events, each once and in order, to the end of its log; over as many connections as it takes."""
        last, news_at, pause_s = -1, time.monotonic(), 0.2
        while True:
            try:
                for event in self._connection(job_id, last):
                    last, news_at, pause_s = event.sequence, time.monotonic(), 0.2
                    yield event
                    if event.type.removeprefix("job.") in TERMINAL:
                        return
                why = "the stream ended before the job did"
            except httpx2.TransportError as exc:
                why = str(exc) or type(exc).__name__
            except Refused as exc:
                if exc.status != 503:
                    raise
                why = str(exc)
            if time.monotonic() - news_at > PATIENCE_S:
                raise CommandError(
                    f"the stream of {job_id} broke and did not come back within {PATIENCE_S:.0f} s: {why}",
                    f"the job goes on without us: vlmq jobs {job_id}",
                )
            yield Dropped(why)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)

    def _connection(self, job_id: str, last: int) -> Iterator[Event]:
        headers = {"last-event-id": str(last)} if last >= 0 else {}
        path = f"/v1/jobs/{quote(job_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _refused(answer)
            data = ""
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    data += line.removeprefix("data:").removeprefix(" ")
                elif not line and data:
                    fields = msgspec.json.decode(data, type=Json)
                    yield Event(int(fields["sequence"]), str(fields["type"]), fields)
                    data = ""

    def json(self, method: str, path: str, **more: Any) -> Json:
        """One request and its answer's object; `more` as httpx takes it."""
        try:
            answer = self._http.request(method, path, **more)
        except (httpx2.TransportError, httpx2.UnsupportedProtocol) as exc:
            raise CommandError(
                f"no vlmq server answers at {self.url} ({exc})",
                "start one with `vlmq up`, or name one with --url or VLMQ_CLI_URL",
            ) from exc
        if answer.status_code >= 400:
            raise _refused(answer)
        try:
            return msgspec.json.decode(answer.content, type=Json)
        except msgspec.DecodeError as exc:
            raise CommandError(f"{self.url}{path} does not answer as a vlmq server would: {exc}") from exc


def _refused(answer: httpx2.Response) -> Refused:
    try:
        error = msgspec.json.decode(answer.content, type=Json)["error"]
        param = f" [{error['param']}]" if error.get("param") else ""
        text = f"{error['message']}{param}"
    except (msgspec.DecodeError, KeyError, TypeError):
        text = answer.text[:200]
    return Refused(answer.status_code, f"the server answered {answer.status_code}: {text}")
