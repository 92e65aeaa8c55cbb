"""Token counts asked over a real Redis: the questions' own life, and what /v1/tokenize says without a worker."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import redis

from cli.services import Services
from jobs.counting import Counted, CountPrompt, CountRefused, CountText, Question, RedisCounting
from jobs.errors import StreamUnavailable
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import chat_request
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

COUNTED = Counted(prompt_tokens=30, image_tokens=16, context_length=100, room=70)


@pytest.fixture
def counting(services: Services) -> Iterator[RedisCounting]:
    with redis.Redis.from_url(services.redis_url) as client:
        yield RedisCounting(client, fresh_prefix())


def answering(counting: RedisCounting, answer: Counted | CountRefused, seen: list[Question]) -> threading.Thread:
    def serve() -> None:
        while (taken := counting.take(MODEL)) is None:
            pass
        seen.append(taken[1])
        counting.answer(taken[0], answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize("question", [CountText("Grüße"), CountPrompt(chat_request("Hello"))], ids=["text", "prompt"])
def test_question_reaches_one_worker_and_its_answer_comes_back(counting: RedisCounting, question: Question) -> None:
    seen: list[Question] = []
    thread = answering(counting, COUNTED, seen)
    assert counting.ask(MODEL, question, 20.0) == COUNTED
    thread.join()
    assert seen == [question]


def test_question_that_nobody_answers_is_forgotten(counting: RedisCounting) -> None:
    assert counting.ask(MODEL, CountText("x"), 0.1) is None
    assert counting.take(MODEL) is None


def test_what_is_no_question_is_dropped_and_the_next_one_is_taken(services: Services) -> None:
    """Of a later version, or of somebody else: who asks gets no answer, and no worker dies of it."""
    prefix = fresh_prefix()
    with redis.Redis.from_url(services.redis_url) as client:
        counting = RedisCounting(client, prefix)
        for name, question in ((b"later", b"\x81\xa4type\xa5later"), (b"trash", b"\xc1"), (b"\xff\xfe", b"")):
            client.set(f"{prefix}count:".encode() + name, question)
            client.rpush(f"{prefix}counts:{MODEL}", name)
        assert [counting.take(MODEL) for _ in range(3)] == [None] * 3
        seen: list[Question] = []
        thread = answering(counting, COUNTED, seen)
        assert counting.ask(MODEL, CountText("x"), 20.0) == COUNTED
        thread.join()


def test_redis_that_is_away_is_named_as_such() -> None:
    counting = RedisCounting(redis.Redis.from_url("unix:///nowhere/redis.sock"), "x:")
    for call in (lambda: counting.ask(MODEL, CountText("x"), 1.0), lambda: counting.take(MODEL)):
        with pytest.raises(StreamUnavailable):
            call()


def counting_of(api: ServedApi) -> RedisCounting:
    return RedisCounting(redis.Redis.from_url(api.services.redis_url), api.services.redis_prefix)


def test_answer_is_shown_with_its_parts(api: ServedApi, http: httpx2.Client) -> None:
    seen: list[Question] = []
    thread = answering(counting_of(api), COUNTED, seen)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    answer = http.post("/v1/tokenize", json=body)
    thread.join()
    assert answer.json() == {
        "object": "token_count",
        "model": MODEL,
        "prompt_tokens": 30,
        "text_tokens": 14,
        "image_tokens": 16,
        "context_length": 100,
        "max_completion_tokens": 70,
    }
    assert isinstance(seen[0], CountPrompt) and seen[0].request.max_tokens == 9


def test_refusal_of_a_worker_is_a_400_with_its_code(api: ServedApi, http: httpx2.Client) -> None:
    thread = answering(counting_of(api), CountRefused("invalid_image", "no image", "messages"), [])
    answer = http.post("/v1/tokenize", json={"model": MODEL, "text": "x"})
    thread.join()
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_image")


def test_without_a_worker_it_is_a_503_that_may_be_tried_again(api: ServedApi, http: httpx2.Client) -> None:
    answer = http.post("/v1/tokenize", json={"model": MODEL, "text": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": MODEL}, "messages"),
        ({"text": "x"}, "model"),
        ({"model": MODEL, "text": 5}, "text"),
        ({"model": MODEL, "text": "x", "messages": []}, "messages"),
        ({"model": MODEL, "text": "x" * 1_000_001}, "text"),
        ({"model": "other", "text": "x"}, "model"),
    ],
)
def test_malformed_question_is_refused_by_name(http: httpx2.Client, body: dict[str, object], param: str) -> None:
    answer = http.post("/v1/tokenize", json=body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


def test_question_whose_client_has_left_waits_no_longer(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(
            settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path),
            count_threads=1,
            count_timeout_s=20,
        ) as api,
    ):
        waiting = api.server.app.state.backend.counting_threads
        asking = [socket.create_connection((urlsplit(api.url).hostname, urlsplit(api.url).port)) for _ in range(4)]
        body = json.dumps({"model": MODEL, "text": "x"}).encode()
        for client in asking:
            head = "POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:"
            client.sendall(f"{head} {len(body)}\r\n\r\n".encode() + body)
        eventually("three wait for the first", lambda: waiting.waiting == 3)
        for client in asking:
            client.close()
        eventually("they have left", lambda: waiting.waiting == 0)
