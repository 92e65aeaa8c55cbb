"""What a connection may send before anybody looks at it is bounded, whoever it is."""

import contextlib
import socket
from collections.abc import Iterator
from itertools import repeat
from urllib.parse import urlsplit

import httpx2
import pytest

from api.http_head import MOST_BYTES
from tests.fixtures.api import MODEL, ServedApi, tokens_of

pytestmark = pytest.mark.integration

PIECE = b"a" * 16_384
ENOUGH = 64 * 2**20
CHUNKED = (
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
ENDLESS = {
    "path": (b"GET /", repeat(PIECE)),
    "value": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", repeat(PIECE)),
    "name": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", repeat(PIECE)),
    "headers": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", repeat(b"x-a: b\r\n" * 2048)),
    "chunk extension": (CHUNKED + b"5;", repeat(PIECE)),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", repeat(b"x-a: b\r\n" * 2048)),
}


def flood(api: ServedApi, begin: bytes, rest: Iterator[bytes]) -> tuple[int, bytes]:
    """How much was taken until the server closed, and what it said."""
    address = urlsplit(api.url)
    sent, said = 0, b""
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        try:
            connection.sendall(begin)
            for piece in rest:
                if sent >= ENOUGH:
                    break
                connection.sendall(piece)
                sent += len(piece)
        except ConnectionError:
            pass
        with contextlib.suppress(OSError):
            said = connection.recv(4096)
    return sent, said


@pytest.mark.parametrize("kind", ENDLESS)
def test_head_or_trailer_without_an_end_is_cut_off(api: ServedApi, http: httpx2.Client, kind: str) -> None:
    sent, _ = flood(api, *ENDLESS[kind])
    assert sent < ENOUGH
    assert http.get("/healthz").status_code == 200


def test_head_that_is_too_long_is_told_so(http: httpx2.Client) -> None:
    # A megabyte, so that it takes several readings.
    answer = http.get("/healthz", headers={"x-a": "a" * 2**20})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "request_head_too_large")


def test_long_head_within_the_bound_and_a_long_body_pass(api: ServedApi, http: httpx2.Client) -> None:
    long = {"x-a": "a" * (MOST_BYTES // 2)}
    assert http.get("/healthz", headers=long).status_code == 200
    text = "word " * 100_000
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    with api.worker.serving(lambda job: api.worker.answer(job, tokens_of(("yes",)))):
        for _ in range(2):
            answer = http.post("/v1/chat/completions", json=body, headers=long)
            assert answer.json()["choices"][0]["message"]["content"] == "yes"
