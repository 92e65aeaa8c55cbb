"""Fetching over real sockets: limits, redirects, and that no private address is ever connected to."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from jobs.network import HostRule, system_resolver
from tests.fixtures.eventually import eventually
from tests.fixtures.tls import CERTIFICATE
from worker.errors import MediaUnavailable
from worker.media.errors import MediaRefused
from worker.media.fetch import Fetcher, FetchLimits

pytestmark = pytest.mark.integration

BODY = b"picture " * 1000
LIMITS = FetchLimits(max_bytes=10_000, max_redirects=3, connect_s=2, read_s=1, total_s=3)


class Handler(BaseHTTPRequestHandler):
    """`/ok`, `/status/<n>`, `/to/<url>`, `/loop`, `/big`, `/endless`, `/drip`, `/hold`, `/empty`, `/gzip`."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        kind, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        getattr(self, f"_{kind}")(rest)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _ok(self, _: str) -> None:
        self._answer(200, BODY)

    def _empty(self, _: str) -> None:
        self._answer(200)

    def _status(self, code: str) -> None:
        self._answer(int(code))

    def _to(self, url: str) -> None:
        self._answer(302, Location=url)

    def _hop(self, left: str) -> None:
        self._answer(307, Location=f"/hop/{int(left) - 1}" if int(left) > 1 else "/ok")

    def _big(self, _: str) -> None:
        self._answer(200, b"x" * 20_000)

    def _gzip(self, _: str) -> None:
        self._answer(200, b"x", Content_Encoding="gzip")

    def _hang_up(self, _: str) -> None:
        self.close_connection = True

    def _hold(self, _: str) -> None:
        assert self.server.go.wait(90)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._ok("")

    def _endless(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        with_nobody_left = (BrokenPipeError, ConnectionResetError)
        try:
            while True:
                self.wfile.write(b"x" * 1000)
        except with_nobody_left:
            return

    def _drip(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9000")
        self.end_headers()
        try:
            for _ in range(60):
                self.wfile.write(b"x")
                time.sleep(0.1)
        except (BrokenPipeError, ConnectionResetError):
            return

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.go = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


def answer_in_two(listening: socket.socket, answer: bytes, go: threading.Event) -> int:
    """Over TLS; the last bytes of its only record are sent when `go` is set. How many bytes it had."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    listening.settimeout(60)
    connection, _ = listening.accept()
    with connection:
        connection.settimeout(60)
        for step in (tls.do_handshake, partial(tls.read, 4096)):
            while True:
                try:
                    step()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(4096))
        connection.sendall(outgoing.read())
        tls.write(answer)
        record = outgoing.read()
        connection.sendall(record[:-100])
        assert go.wait(90)
        connection.sendall(record[-100:])
        return len(record)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def fetcher(*trusted: str, limits: FetchLimits = LIMITS, resolve: Callable[[str, int], list[str]] = system_resolver):
    return Fetcher(HostRule.of(("80", "443"), trusted), limits, resolve)


def code_of(fetch: Fetcher, url: str) -> str:
    with pytest.raises(MediaRefused) as refused:
        fetch.fetch(url)
    return refused.value.code


def test_image_of_a_trusted_host_is_fetched_with_its_own_host_header(server):
    assert fetcher(server.place).fetch(f"{server.url}/ok?a=b") == BODY
    path, headers = server.seen[0]
    assert path == "/ok?a=b"
    assert headers["Host"] == server.place
    assert headers["Accept-Encoding"] == "identity"


def test_redirects_are_followed_up_to_the_limit(server):
    fetch = fetcher(server.place)
    assert fetch.fetch(f"{server.url}/hop/3") == BODY
    assert code_of(fetch, f"{server.url}/hop/4") == "failed_to_download_image"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_client_error_of_the_host_is_final(server, status):
    assert code_of(fetcher(server.place), f"{server.url}/status/{status}") == "failed_to_download_image"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_server_error_of_the_host_may_be_tried_again(server, status):
    with pytest.raises(MediaUnavailable, match=str(status)):
        fetcher(server.place).fetch(f"{server.url}/status/{status}")


def test_body_over_the_limit_is_refused_announced_or_not(server):
    fetch = fetcher(server.place)
    assert code_of(fetch, f"{server.url}/big") == "image_file_too_large"
    assert code_of(fetch, f"{server.url}/endless") == "image_file_too_large"


def test_encoded_body_is_refused(server):
    assert code_of(fetcher(server.place), f"{server.url}/gzip") == "failed_to_download_image"


def test_host_that_drips_is_given_up_at_the_total_time(server):
    limits = FetchLimits(max_bytes=10_000, max_redirects=3, connect_s=1, read_s=1, total_s=0.5)
    with pytest.raises(MediaUnavailable):
        fetcher(server.place, limits=limits).fetch(f"{server.url}/drip")


def test_host_that_never_answers_is_given_up():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        limits = FetchLimits(max_bytes=100, max_redirects=3, connect_s=0.3, read_s=0.3, total_s=5)
        with pytest.raises(MediaUnavailable, match="in time"):
            fetcher(place, limits=limits).fetch(f"http://{place}/x")
        with pytest.raises(MediaUnavailable, match="in time"):
            fetcher(place, limits=limits).fetch(f"https://{place}/x")


def test_host_that_refuses_connections_may_be_tried_again():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(MediaUnavailable, match="cannot be reached"):
        fetcher(place).fetch(f"http://{place}/x")


def test_host_that_breaks_off_may_be_tried_again(server):
    with pytest.raises(MediaUnavailable, match="broke off"):
        fetcher(server.place).fetch(f"{server.url}/hang_up")


def test_host_that_does_not_speak_tls_is_final(server):
    assert code_of(fetcher(server.place), f"https://{server.place}/ok") == "failed_to_download_image"


def test_resolver_that_never_answers_is_given_up():
    def resolve(host: str, port: int) -> list[str]:
        time.sleep(1)
        return []

    limits = FetchLimits(max_bytes=100, max_redirects=3, connect_s=0.1, read_s=1, total_s=5)
    with pytest.raises(MediaUnavailable, match="resolving"):
        fetcher(limits=limits, resolve=resolve).fetch("http://slow.example/x")


def test_host_without_an_address_is_final():
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert code_of(fetcher(resolve=resolve), "http://nowhere.example/x") == "failed_to_download_image"


class Listener:
    """Listens where nothing may connect, and knows whether something did."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def was_connected_to(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


PRIVATE_HOSTS = [
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0"),
    *("localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "①②⑦.⓪.⓪.①"),
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[2002:7f00:1::]"),
    *("[64:ff9b::7f00:1]", "[fe80::1]", "[fd00:ec2::254]"),
    *("169.254.169.254", "2852039166", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1"),
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_private_host_however_spelled_is_refused_without_a_connection(listener, host):
    rule = HostRule.of((str(listener.port), "80"), ())
    fetch = Fetcher(rule, LIMITS)
    assert code_of(fetch, f"http://{host}:{listener.port}/") in ("invalid_image_url", "failed_to_download_image")
    assert not listener.was_connected_to()


def test_redirect_to_a_private_host_is_refused(server, listener):
    targets = [f"http://localhost:{listener.port}/", "http://169.254.169.254/latest/", "file:///etc/passwd", "//[::1]/"]
    rule = HostRule.of((str(listener.port), "80"), [server.place])
    for target in targets:
        assert code_of(Fetcher(rule, LIMITS), f"{server.url}/to/{target}") == "invalid_image_url", target
    assert not listener.was_connected_to()


def test_name_with_one_private_address_among_public_ones_is_refused(listener):
    rule = HostRule.of((str(listener.port),), ())
    fetch = Fetcher(rule, LIMITS, lambda host, port: ["93.184.216.34", "127.0.0.1"])
    assert code_of(fetch, f"http://mixed.example:{listener.port}/") == "invalid_image_url"
    assert not listener.was_connected_to()


def test_name_that_changes_its_address_is_resolved_once_per_connection(listener):
    answers = [["127.0.0.1"], ["93.184.216.34"]]
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[-1] if len(asked) % 2 else answers[0]

    limits = FetchLimits(max_bytes=100, max_redirects=0, connect_s=0.3, read_s=0.3, total_s=0.6)
    fetch = Fetcher(HostRule.of((str(listener.port),), ()), limits, rebinding)
    with pytest.raises(MediaUnavailable):
        fetch.fetch(f"http://rebind.example:{listener.port}/")
    assert asked == ["rebind.example"]
    assert not listener.was_connected_to()


def test_proxy_of_the_environment_is_not_used(server, listener, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    assert fetcher(server.place).fetch(f"{server.url}/ok") == BODY
    assert not listener.was_connected_to()


@pytest.mark.parametrize("path", ["drip", "hold"])
def test_fetch_that_nobody_waits_for_any_more_ends(server, path):
    unwanted = threading.Event()
    patient = FetchLimits(max_bytes=10_000, max_redirects=0, connect_s=2, read_s=600, total_s=600)
    with ThreadPoolExecutor(1) as thread:
        fetch = fetcher(server.place, limits=patient)
        fetching = thread.submit(fetch.fetch, f"{server.url}/{path}", unwanted.is_set)
        eventually("the host is asked", lambda: server.seen)
        unwanted.set()
        error = fetching.exception(60)
    server.go.set()
    assert isinstance(error, MediaUnavailable)
    assert "nobody waits for it any more" in str(error)


def test_host_that_is_silent_for_longer_than_one_look_may_still_answer(server):
    patient = FetchLimits(max_bytes=10_000, max_redirects=0, connect_s=2, read_s=60, total_s=60)
    with ThreadPoolExecutor(1) as thread:
        fetching = thread.submit(fetcher(server.place, limits=patient).fetch, f"{server.url}/hold")
        with pytest.raises(TimeoutError):
            fetching.result(2.5)
        server.go.set()
        assert fetching.result(60) == BODY


def test_answer_over_tls_that_pauses_inside_a_record_is_read_whole(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    patient = FetchLimits(max_bytes=10_000, max_redirects=0, connect_s=60, read_s=60, total_s=60)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    go = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(2) as threads:
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        sent = threads.submit(answer_in_two, listening, answer, go)
        fetching = threads.submit(fetcher(place, limits=patient).fetch, f"https://{place}/")
        with pytest.raises(TimeoutError):
            fetching.result(2.5)
        go.set()
        assert sent.result(60) > len(BODY)
        assert fetching.result(60) == BODY


def test_port_that_is_not_allowed_is_refused_before_resolving(listener):
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError("resolved")

    assert code_of(fetcher(resolve=resolve), f"http://public.example:{listener.port}/") == "invalid_image_url"


@pytest.mark.parametrize(
    "url",
    ["ftp://host/x", "http://", "http:///x", "http://user:pw@host/x", "gopher://x", "http://[::1"],
)
def test_malformed_or_foreign_url_is_refused(url):
    assert code_of(fetcher(), url) == "invalid_image_url"
