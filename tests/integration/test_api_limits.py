"""Limits of API keys at the door, and under many requests at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from cli.services import Services
from jobs.database import Database
from jobs.errors import LimitReached
from jobs.job import Origin, Priority
from jobs.keys import PostgresApiKeys
from jobs.limits import KeyLimits, Limit, PostgresKeyUsage
from jobs.ports import JobFilter
from jobs.store import PostgresJobStore
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}


@pytest.fixture(scope="module")
def keys(api: ServedApi) -> Iterator[PostgresApiKeys]:
    database = Database(api.services.database_url, pool_size=1)
    made = PostgresApiKeys(database)
    made.create("somebody", "so that there are keys")
    yield made
    database.close()


@contextmanager
def limited(api: ServedApi, keys: PostgresApiKeys, limits: KeyLimits, tenant: str = "acme") -> Iterator[httpx2.Client]:
    """A client whose key has these limits. Whatever it leaves is ended."""
    key, secret = keys.create(tenant, "limited", limits)
    with api.client(headers={"authorization": f"Bearer {secret}"}) as client:
        yield client
    for job in api.worker.store.page(tenant, JobFilter(limit=100)):
        api.worker.store.cancel(job.id)
    keys.revoke(key.id)


def refused(answer: httpx2.Response, code: str) -> None:
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", code)
    assert 1 <= int(answer.headers["retry-after"]) <= 120


def test_headers_tell_what_is_left_after_each_request(api: ServedApi, keys: PostgresApiKeys) -> None:
    with limited(api, keys, KeyLimits(requests_per_minute=2, tokens_per_minute=1_000_000)) as http:
        first = http.post("/v1/jobs", json=BODY)
        cost = api.worker.store.get(first.json()["id"]).cost
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "30s"
        assert first.headers["x-ratelimit-remaining-tokens"] == str(1_000_000 - cost)
        # Something of the minute may have come back since.
        assert http.post("/v1/jobs", json=BODY).headers["x-ratelimit-remaining-requests"] == "0"
        answer = http.post("/v1/jobs", json=BODY)
        refused(answer, "requests_per_minute_exceeded")
        assert "2 requests per minute" in answer.json()["error"]["message"]
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_wrong_request_gets_the_headers_and_counts_for_nothing(api: ServedApi, keys: PostgresApiKeys) -> None:
    with limited(api, keys, KeyLimits(requests_per_minute=3)) as http:
        for _ in range(4):
            answer = http.post("/v1/jobs", json=BODY | {"nonsense": 1})
            assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (400, "3")
        assert http.get("/v1/jobs").headers.get("x-ratelimit-limit-requests") is None


def test_a_repeated_request_counts_once_and_is_answered_when_nothing_is_left(
    api: ServedApi, keys: PostgresApiKeys
) -> None:
    with limited(api, keys, KeyLimits(requests_per_minute=1)) as http:
        first, second = (http.post("/v1/jobs", json=BODY, headers={"idempotency-key": "k"}) for _ in range(2))
        assert first.json()["id"] == second.json()["id"]
        assert (second.status_code, second.headers["idempotent-replayed"]) == (201, "true")
        refused(http.post("/v1/jobs", json=BODY, headers={"idempotency-key": "new"}), "requests_per_minute_exceeded")


def test_waiting_jobs_are_limited_until_one_goes(api: ServedApi, keys: PostgresApiKeys) -> None:
    with limited(api, keys, KeyLimits(queued_jobs=1)) as http:
        job_id = http.post("/v1/jobs", json=BODY).json()["id"]
        refused(http.post("/v1/jobs", json=BODY), "queued_jobs_exceeded")
        refused(http.post("/v1/chat/completions", json=BODY), "queued_jobs_exceeded")
        http.post(f"/v1/jobs/{job_id}/cancel")
        assert http.post("/v1/jobs", json=BODY).status_code == 201


@contextmanager
def own_api(services: Services, folder: Path, **settings: object) -> Iterator[tuple[ServedApi, PostgresApiKeys]]:
    """With a queue and workers of the test's own."""
    with fresh_database(services) as url:
        database = Database(url, pool_size=1)
        with served(settings_for(url, services.redis_url, fresh_prefix(), folder), **settings) as api:
            yield api, PostgresApiKeys(database)
        database.close()


@pytest.mark.parametrize("limits", [KeyLimits(queued_jobs=1), KeyLimits(jobs_in_flight=1)])
def test_jobs_that_are_too_many_are_welcome_when_at_the_workers_speed_one_has_moved(
    services: Services, tmp_path: Path, limits: KeyLimits
) -> None:
    with own_api(services, tmp_path) as (api, keys), limited(api, keys, limits) as http:

        def retry_after() -> str:
            answer = http.post("/v1/jobs", json=BODY)
            assert answer.status_code == 429, answer.text
            return answer.headers["retry-after"]

        api.worker.store.insert(new_job(model=MODEL, tenant="other", cost=4000))
        running = api.worker.claim()
        assert http.post("/v1/jobs", json=BODY).status_code == 201
        assert retry_after() == "5"  # nobody knows
        api.worker.heartbeat()
        # What a server knows of the queue and its workers is up to a second old.
        eventually("the time until the running one ends", lambda: retry_after() == "20", every_s=0.1)
        api.worker.stats["served_per_s"] = 1.0
        api.worker.heartbeat()
        eventually("no more than clients wait by themselves", lambda: retry_after() == "120", every_s=0.1)
        api.worker.answer(running)


def test_waiting_jobs_of_others_that_come_first_are_waited_for(services: Services, tmp_path: Path) -> None:
    with own_api(services, tmp_path) as (api, keys), limited(api, keys, KeyLimits(queued_jobs=2)) as http:
        urgent = new_job(model=MODEL, tenant="other", cost=6000, priority=Priority.INTERACTIVE)
        api.worker.store.insert(urgent)
        api.worker.heartbeat()
        # The second of the two waits for the first, and nobody for the second.
        assert [http.post("/v1/jobs", json=BODY).status_code for _ in range(2)] == [201, 201]
        eventually("urgent one goes first", lambda: http.post("/v1/jobs", json=BODY).headers["retry-after"] == "30")


def test_what_a_key_is_refused_fills_no_queue(services: Services, tmp_path: Path) -> None:
    with (
        own_api(services, tmp_path, max_queued=3) as (api, keys),
        limited(api, keys, KeyLimits(queued_jobs=1)) as http,
        limited(api, keys, KeyLimits(), tenant="other") as other,
    ):
        assert http.post("/v1/jobs", json=BODY).status_code == 201
        for _ in range(6):
            refused(http.post("/v1/jobs", json=BODY), "queued_jobs_exceeded")
        assert [other.post("/v1/jobs", json=BODY).status_code for _ in range(2)] == [201, 201]
        refused(other.post("/v1/jobs", json=BODY), "queue_full")


def test_openais_client_raises_its_rate_limit_error(api: ServedApi, keys: PostgresApiKeys) -> None:
    _, secret = keys.create("acme", "official", KeyLimits(jobs_in_flight=1))
    client = openai.OpenAI(base_url=f"{api.url}/v1", api_key=secret, max_retries=0)
    api.worker.store.insert(new_job(tenant="acme", origin=Origin(keys.list("acme")[-1].id)))
    with client, pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.request_id is not None
    for job in api.worker.store.page("acme", JobFilter(limit=100)):
        api.worker.store.cancel(job.id)


def test_a_rotated_keys_old_secret_goes_on(api: ServedApi, keys: PostgresApiKeys) -> None:
    key, old = keys.create("acme", "rotated")
    _, new = keys.rotate(key.id, overlap_s=3600)
    for secret, status in ((old, 200), (new, 200)):
        with api.client(headers={"authorization": f"Bearer {secret}"}) as http:
            assert http.get("/v1/jobs").status_code == status
    keys.rotate(key.id, overlap_s=0)
    with api.client(headers={"authorization": f"Bearer {new}"}) as http:
        assert http.get("/v1/jobs").status_code == 401


# -- many at once: each thread with a connection of its own, as each process would have


PROCESSES = 6


@pytest.mark.parametrize(
    ("limits", "limit", "most"),
    [
        (KeyLimits(requests_per_minute=10), Limit.REQUESTS, 10),
        (KeyLimits(tokens_per_minute=1000), Limit.TOKENS, 10),
        (KeyLimits(queued_jobs=10), Limit.QUEUED, 10),
        (KeyLimits(jobs_in_flight=10), Limit.IN_FLIGHT, 10),
    ],
)
def test_no_more_is_let_in_than_the_limit_however_many_ask_at_once(
    database_url: str, limits: KeyLimits, limit: Limit, most: int
) -> None:
    database = Database(database_url, pool_size=PROCESSES)
    store = PostgresJobStore(database)

    def ask(_: int) -> list[str]:
        refusals = []
        for _ in range(8):
            try:
                store.insert(new_job(origin=Origin("key_1"), cost=100), limits=limits)
            except LimitReached as exc:
                refusals.append(exc.limit)
        return refusals

    with ThreadPoolExecutor(PROCESSES) as pool:
        refusals = [each for some in pool.map(ask, range(PROCESSES)) for each in some]
    database.close()
    let_in = PROCESSES * 8 - len(refusals)
    assert set(refusals) == {limit}
    # What comes back while they ask may let one or two more in, where a minute is what counts.
    assert most <= let_in <= most + (5 if limit in (Limit.REQUESTS, Limit.TOKENS) else 0)


def test_ends_and_charges_of_one_key_at_once_lose_nothing_and_do_not_deadlock(database_url: str) -> None:
    limits = KeyLimits(requests_per_minute=10**6, tokens_per_minute=2 * 10**9, jobs_in_flight=10**6)
    database = Database(database_url, pool_size=PROCESSES)
    store, usage = PostgresJobStore(database), PostgresKeyUsage(database)

    def work(number: int) -> None:
        for _ in range(15):
            job = store.insert(new_job(origin=Origin("key_1"), tenant=f"t{number}", cost=10**9 // 100), limits=limits)
            store.cancel(job.id)
            usage.pace("key_1", limits, [1, 1])

    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(work, range(PROCESSES)))
    # All were given back: without that, 900 million would be spent, and 33 million a second come back.
    assert usage.spent("key_1", limits).tokens < 10**8
    database.close()
