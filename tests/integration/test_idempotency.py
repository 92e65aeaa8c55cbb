"""The same request again, and at the same time: one job."""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

import httpx2
import pytest

from jobs.database import Database
from jobs.errors import IdempotencyKeyTaken
from jobs.idempotency import IdempotencyKey, PostgresIdempotencyKeys
from jobs.ports import JobFilter
from jobs.store import PostgresJobStore
from tests.fixtures.api import MODEL, ServedApi
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.integration

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(autouse=True)
def nothing_left(api: ServedApi) -> Iterator[None]:
    yield
    for job in api.worker.store.page("default", JobFilter(limit=100)):
        api.worker.store.cancel(job.id)
        api.worker.store.delete(job.id, "default")


def post(http: httpx2.Client, key: str, body: dict[str, Any] = BODY, path: str = "/v1/jobs") -> httpx2.Response:
    return http.post(path, json=body, headers={"idempotency-key": key})


def ids(http: httpx2.Client) -> list[str]:
    return [job["id"] for job in http.get("/v1/jobs", params={"limit": 100}).json()["data"]]


def test_the_same_request_again_gives_the_same_job_and_says_so(http: httpx2.Client) -> None:
    first, second = post(http, "again"), post(http, "again")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert first.headers["location"] == second.headers["location"]
    assert ids(http) == [first.json()["id"]]


def test_a_replay_shows_the_job_as_it_is_now(api: ServedApi, http: httpx2.Client) -> None:
    job_id = post(http, "later").json()["id"]
    ended = api.worker.answer(api.worker.claim(job_id))
    assert post(http, "later").json()["status"] == ended.state


def test_another_body_under_the_key_is_422_and_makes_nothing(http: httpx2.Client) -> None:
    first = post(http, "reused")
    answer = post(http, "reused", BODY | {"max_tokens": 3})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "idempotency_key_reused")
    assert "'reused'" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert ids(http) == [first.json()["id"]]


def test_a_request_without_a_key_is_a_new_one(http: httpx2.Client) -> None:
    made = {post(http, "with").json()["id"], *(http.post("/v1/jobs", json=BODY).json()["id"] for _ in range(2))}
    assert set(ids(http)) == made
    assert len(made) == 3


def test_a_refused_request_leaves_its_key_free(http: httpx2.Client) -> None:
    assert post(http, "refused", BODY | {"nonsense": 1}).status_code == 400
    answer = post(http, "refused")
    assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (201, None)


def test_a_deleted_job_is_not_made_again(http: httpx2.Client) -> None:
    job_id = post(http, "deleted").json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 200
    answer = post(http, "deleted")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "idempotent_result_deleted"
    assert ids(http) == []


@pytest.mark.parametrize("key", ["", "a" * 256, "tab\there", "ä"])
def test_what_is_no_key_is_400(http: httpx2.Client, key: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", key.encode("latin-1"))]
    answer = http.post("/v1/jobs", content=json.dumps(BODY), headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"
    assert ids(http) == []


def test_two_keys_in_one_request_are_400(http: httpx2.Client) -> None:
    headers = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = http.post("/v1/jobs", content=json.dumps(BODY), headers=headers)
    assert answer.status_code == 400
    assert "several" in answer.json()["error"]["message"]


def test_a_key_of_255_characters_is_a_key(http: httpx2.Client) -> None:
    key = "~ " * 127 + "!"
    assert post(http, key).json()["id"] == post(http, key).json()["id"]


def test_one_request_sent_thirty_times_at_once_makes_one_job(api: ServedApi, http: httpx2.Client) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: post(http, "at once"), range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert {answer.json()["id"] for answer in answers} == set(ids(http))
    assert len(ids(http)) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


KEYS = [IdempotencyKey("acme", f"k-{number}", b"\x00" * 32) for number in range(50)]


def _insert_all(url: str, ready: Barrier, names: list[str]) -> None:
    """One process: a job under each key, all of which another process wants as well."""
    database = Database(url, pool_size=1)
    store = PostgresJobStore(database)
    ready.wait(30)
    for key, name in zip(KEYS, names, strict=True):
        try:
            store.insert(new_job(id=name, tenant="acme"), key)
        except IdempotencyKeyTaken:
            continue
    database.close()


def test_two_processes_with_the_same_keys_at_once_make_each_job_once(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(2)
    names = [[f"job_{process}_{number}" for number in range(len(KEYS))] for process in range(2)]
    running = [context.Process(target=_insert_all, args=(database_url, ready, some)) for some in names]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    database = Database(database_url)
    store, keys = PostgresJobStore(database), PostgresIdempotencyKeys(database)
    made = [keys.find(key) for key in KEYS]
    recorded = {job.id for job in store.page("acme", JobFilter(limit=200))}
    database.close()
    assert recorded == set(made)
    assert [name in pair for name, pair in zip(made, zip(*names, strict=True), strict=True)] == [True] * len(KEYS)
