"""The command's client against a real HTTP server that misbehaves as told."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.asking import follow
from cli.client import Client, Dropped, Event, Refused
from cli.errors import CommandError

pytestmark = pytest.mark.integration

LOG = ["job.queued", "job.in_progress", "job.delta", "job.delta", "job.delta", "job.completed"]


class Served(ThreadingHTTPServer):
    """Serves one job's events. Connection k is cut after `cuts[k]` events; without a cut it goes to the end."""

    daemon_threads = True

    def __init__(self, cuts: list[int], refusals: list[int]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts = cuts
        self.refusals = refusals
        self.asked_after: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        if not self.path.endswith("/events"):
            self._error(404, {"error": {"message": "no such thing", "type": "x", "param": "id", "code": "y"}})
            return
        if self.server.refusals:
            self._error(self.server.refusals.pop(0), {"error": {"message": "not now", "param": None}})
            return
        after = self.headers["last-event-id"]
        self.server.asked_after.append(after)
        first = 0 if after is None else int(after) + 1
        cut = self.server.cuts.pop(0) if self.server.cuts else len(LOG)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for sequence in range(first, min(first + cut, len(LOG))):
            data = json.dumps({"type": LOG[sequence], "sequence": sequence, "text": f"<{sequence}>"})
            self.wfile.write(f": hi\n\nid: {sequence}\nevent: {LOG[sequence]}\ndata: {data}\n\n".encode())

    def _error(self, status: int, body: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    servers: list[Served] = []

    def start(cuts: list[int] | None = None, refusals: list[int] | None = None) -> Served:
        server = Served(cuts or [], refusals or [])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def followed(server: Served) -> list[Event | Dropped]:
    return list(Client(server.url).events("job_1"))


def test_client_events_come_once_and_in_order(serve: Callable[..., Served]) -> None:
    events = followed(serve())
    assert [e.type for e in events if isinstance(e, Event)] == LOG


def test_client_events_of_a_broken_stream_go_on_after_the_last_one(serve: Callable[..., Served]) -> None:
    server = serve(cuts=[3, 1])
    events = followed(server)
    assert [e.sequence for e in events if isinstance(e, Event)] == list(range(len(LOG)))
    assert server.asked_after == [None, "2", "3"]
    assert sum(isinstance(e, Dropped) for e in events) == 2


def test_client_events_of_a_server_that_is_not_ready_are_asked_for_again(serve: Callable[..., Served]) -> None:
    events = followed(serve(refusals=[503]))
    assert [e.type for e in events if isinstance(e, Event)] == LOG


def test_ask_goes_on_when_a_server_that_was_not_ready_is(serve: Callable[..., Served]) -> None:
    with Client(serve(refusals=[503] * 4).url) as client:
        answer = follow(client, "job_1")
    assert (answer.state, answer.text, answer.tokens) == ("completed", "<2><3><4>", 3)


def test_client_events_of_an_unknown_job_are_refused_at_once(serve: Callable[..., Served]) -> None:
    with pytest.raises(Refused, match="404: not now"):
        followed(serve(refusals=[404]))


def test_client_error_shows_the_servers_words_and_field(serve: Callable[..., Served]) -> None:
    with pytest.raises(Refused, match=r"the server answered 404: no such thing \[id\]"):
        Client(serve().url).job("nope")


def test_client_without_a_server_says_where_it_looked_and_what_to_do() -> None:
    with pytest.raises(CommandError, match=r"no vlmq server answers at http://127\.0\.0\.1:9") as caught:
        Client("http://127.0.0.1:9").models()
    assert "vlmq up" in caught.value.hint


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "nonsense", "http://[::1"])
def test_client_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(CommandError, match=r"vlmq server|not a URL"):
        Client(url).models()
