"""What is deleted or purged leaves nothing: every table, every key in Redis and every file is looked into."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
import redis

from api.media import data_url
from jobs.event_log import stream_key
from jobs.job import Job
from jobs.tables import metadata
from jobs.webhooks.settings import WebhookSettings
from tests.fixtures.api import MODEL, ServedApi, served, tokens_of
from tests.fixtures.eventually import eventually
from tests.fixtures.services import settings_for
from worker.cleaning import BATCH
from worker.maintenance import Maintenance
from worker.settings import MaintenanceSettings

pytestmark = pytest.mark.integration

MARK = "Zanzibar-4711"
PICTURE = MARK.encode() + b" is no picture, but nobody decodes it here"
MESSAGES = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": f"Where is {MARK}?"},
            {"type": "image_url", "image_url": {"url": data_url(PICTURE, "image/png")}},
        ],
    }
]
INPUT = [
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": f"Where is {MARK}?"},
            {"type": "input_image", "image_url": data_url(PICTURE, "image/png"), "detail": "auto"},
        ],
    }
]
ANSWER = tokens_of(("In ", MARK, "."))
HOOK = {"url": f"http://127.0.0.1:9/{MARK}", "event_types": ["job.completed"]}


@pytest.fixture
def api(database_url: str, redis_url: str, redis_prefix: str, tmp_path: Path) -> Iterator[ServedApi]:
    services = settings_for(database_url, redis_url, redis_prefix, tmp_path)
    with served(services, WebhookSettings(allowed_hosts=("127.0.0.1:9",))) as running:
        yield running


def clean(api: ServedApi, **settings: float) -> None:
    """The maintenance process once, for which everything is old enough at once."""
    time.sleep(0.01)
    maintenance = Maintenance(api.services.model_copy(update=settings), MaintenanceSettings(blob_age_s=0.001))
    maintenance.turn()
    maintenance.close()


def tables_with(api: ServedApi, *words: str) -> dict[str, int]:
    """Every table that holds one of these words anywhere, and in how many rows."""
    found: dict[str, int] = {}
    with psycopg.connect(api.services.database_url) as connection:
        for table in metadata.sorted_tables:
            for word in words:
                query = f"SELECT count(*) FROM {table.name} AS one WHERE position(%s in CAST(one.* AS text)) > 0"
                row = connection.execute(query, (word,)).fetchone()
                if row is not None and row[0]:
                    found[table.name] = found.get(table.name, 0) + row[0]
    return found


def redis_with(api: ServedApi, *words: str) -> list[bytes]:
    """Keys whose name or value holds one of these words, but for what says that a log was erased."""
    found = []
    with redis.Redis.from_url(api.services.redis_url) as client:
        for key in client.scan_iter(f"{api.services.redis_prefix}*"):
            value = client.dump(key) or b""
            if client.type(key) == b"stream":
                value = repr(client.xrange(key)).encode()
            if client.type(key) == b"string" and client.get(key) == b"erased":
                assert 0 < client.ttl(key) <= 60
                continue
            if any(word.encode() in key + value for word in words):
                found.append(key)
    return found


def files_of(api: ServedApi) -> list[Path]:
    return [path for path in Path(api.services.blob_url).glob("**/*") if path.is_file()]


def left_of(api: ServedApi, *words: str) -> tuple[dict[str, int], list[bytes], list[Path]]:
    encoded = base64.b64encode(PICTURE).decode()[:24]
    return tables_with(api, MARK, encoded, *words), redis_with(api, MARK, *words), files_of(api)


NOTHING: tuple[dict[str, int], list[bytes], list[Path]] = ({}, [], [])


def run(api: ServedApi, http: httpx2.Client, path: str, body: dict[str, object]) -> str:
    with api.worker.serving(lambda job: api.worker.answer(job, ANSWER)):
        answer = http.post(path, json={"model": MODEL, **body}, headers={"idempotency-key": f"key-{path}"})
        assert answer.status_code < 300, answer.text
        job_id = answer.headers["x-vlmq-job-id"]
        eventually("it ends", lambda: http.get(f"/v1/jobs/{job_id}").json()["timeline"]["done_at"])
    return str(job_id)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/jobs", {"messages": MESSAGES, "metadata": {"k": MARK}, "webhook": HOOK}),
        ("/v1/chat/completions", {"messages": MESSAGES, "store": True, "metadata": {"k": MARK}, "webhook": HOOK}),
        ("/v1/responses", {"input": INPUT, "instructions": MARK, "metadata": {"k": MARK}, "webhook": HOOK}),
    ],
)
def test_what_is_deleted_leaves_nothing_anywhere(api: ServedApi, path: str, body: dict[str, object]) -> None:
    with api.client() as http:
        job_id = run(api, http, path, body)
        rows, keys, files = left_of(api, job_id)
        there = {"jobs", "job_tokens", "job_attempts", "job_blobs", "webhook_deliveries", "idempotency_keys"}
        assert (rows.keys(), bool(keys), len(files)) == (there, True, 1)
        assert http.delete(f"{path}/{job_id}").status_code == 200
        clean(api)
        assert left_of(api, job_id) == NOTHING
        again = http.post(path, json={"model": MODEL, **body}, headers={"idempotency-key": f"key-{path}"})
        assert (again.status_code, again.json()["error"]["code"]) == (404, "idempotent_result_deleted")


def test_deleted_file_and_endpoint_leave_nothing_anywhere(api: ServedApi) -> None:
    with api.client() as http:
        file = http.post(
            "/v1/files",
            data={"purpose": "vision"},
            files={"file": (f"{MARK}.png", PICTURE, "image/png")},
            headers={"idempotency-key": "a"},
        ).json()
        endpoint = http.post(
            "/v1/webhook_endpoints",
            json={"name": MARK, "url": f"http://127.0.0.1:9/{MARK}", "event_types": ["job.completed"]},
            headers={"idempotency-key": "b"},
        ).json()
        ids = (file["id"], endpoint["id"])
        assert left_of(api, *ids)[0].keys() == {"files", "webhook_endpoints", "idempotency_keys"}
        assert http.delete(f"/v1/files/{ids[0]}").status_code == 200
        assert http.delete(f"/v1/webhook_endpoints/{ids[1]}").status_code == 200
        clean(api)
        assert left_of(api, *ids) == NOTHING


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "metadata": {"k": MARK}}),
        ("/v1/responses", {"input": INPUT, "instructions": MARK, "metadata": {"k": MARK}}),
    ],
)
def test_what_was_not_to_be_stored_is_gone_when_it_is_answered(
    api: ServedApi, path: str, body: dict[str, object], stream: bool
) -> None:
    asked = {"model": MODEL, "store": False, "stream": stream, **body}
    with api.client() as http, api.worker.serving(lambda job: api.worker.answer(job, ANSWER)):
        answer = http.post(path, json=asked)
        assert MARK in answer.text
        job_id = answer.headers["x-vlmq-job-id"]
        shown = eventually("it is purged", lambda: (job := http.get(f"/v1/jobs/{job_id}").json())["purged_at"] and job)
        assert (shown["status"], shown["output"], shown["usage"]["completion_tokens"]) == ("completed", "", 3)
        assert shown["attempts"][0]["end"] == "finished"
        events = http.get(f"/v1/jobs/{job_id}/events")
        assert (events.status_code, events.json()["error"]["code"]) == (410, "job_purged")
        clean(api)
        eventually("nothing is left", lambda: left_of(api) == NOTHING)
        assert tables_with(api, job_id).keys() == {"jobs", "job_attempts"}


def test_unstored_jobs_are_read_for_a_while_and_then_purged_however_many(api: ServedApi) -> None:
    with api.client() as http:
        job_id = run(api, http, "/v1/chat/completions", {"messages": MESSAGES})
        assert MARK in http.get(f"/v1/jobs/{job_id}").json()["output"]
        with psycopg.connect(api.services.database_url) as connection:
            # More than one step of the cleaner takes.
            copies = "id || '-' || number, tenant, kind, model, priority, state, request, metadata, max_attempts"
            connection.execute(f"""
                INSERT INTO jobs (id, tenant, kind, model, priority, state, request, metadata, max_attempts, stored,
                                  done_at)
                SELECT {copies.replace("number", "copy")}, stored, done_at
                FROM jobs, generate_series(1, {BATCH + 50}) AS copy""")
        clean(api)
        assert tables_with(api, MARK)["jobs"] == BATCH + 51
        clean(api, unstored_s=0.001)
        assert left_of(api) == NOTHING
        again = http.post(
            "/v1/chat/completions",
            json={"model": MODEL, "messages": MESSAGES},
            headers={"idempotency-key": "key-/v1/chat/completions"},
        )
        assert (again.status_code, again.json()["error"]["code"]) == (410, "idempotent_result_purged")
        clean(api, retention_s=0.001)
        assert tables_with(api, job_id).keys() <= {"idempotency_keys"}


def test_client_that_leaves_an_unstored_stream_leaves_nothing(api: ServedApi) -> None:
    asked = {"model": MODEL, "store": False, "stream": True, "messages": MESSAGES}
    with api.client() as http:
        claimed: list[Job] = []
        with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
            claimed.append(api.worker.claim())
            api.worker.say(claimed[0], ANSWER[:2])
            next(answer.iter_lines())
        job_id = claimed[0].id
        eventually("it is purged", lambda: http.get(f"/v1/jobs/{job_id}").json()["purged_at"])
        clean(api)
        assert left_of(api) == NOTHING


def test_log_of_a_job_that_ended_while_redis_was_away_is_ended_with_what_was_seen_of_it(api: ServedApi) -> None:
    with api.client() as http:
        job_id = http.post("/v1/jobs", json={"model": MODEL, "messages": MESSAGES}).json()["id"]
        api.worker.say(api.worker.claim(job_id), ANSWER[:2])
        # The row alone, as by a process that cannot reach Redis.
        api.worker.store.cancel(job_id)
        with redis.Redis.from_url(api.services.redis_url) as client:
            log = stream_key(api.services.redis_prefix, job_id)
            assert client.ttl(log) > api.services.stream_ttl_s
            clean(api)
            assert 0 < client.ttl(log) <= api.services.stream_ttl_s
        shown = http.get(f"/v1/jobs/{job_id}").json()
        assert (shown["status"], shown["output"]) == ("cancelled", "".join(token.text for token in ANSWER[:2]))
        assert "job.cancelled" in http.get(f"/v1/jobs/{job_id}/events").text
