"""`python -m api` as a process: where it listens, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import psycopg
import pytest
import redis

from cli.services import Services
from jobs.database import Database
from jobs.event_log import RedisEventLog
from jobs.job import JobState
from jobs.keys import PostgresApiKeys
from jobs.settings import ServiceSettings
from jobs.store import PostgresJobStore
from tests.fixtures.api import MODEL, ScriptedWorker, tokens_of

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "What is this?"}]}


def environment(services: ServiceSettings, **settings: str) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("VLMQ_")},
        "VLMQ_DATABASE_URL": services.database_url,
        "VLMQ_REDIS_URL": services.redis_url,
        "VLMQ_REDIS_PREFIX": services.redis_prefix,
        "VLMQ_BLOB_URL": services.blob_url,
        "VLMQ_MODELS": MODEL,
        "VLMQ_API_PORT": "0",
        **settings,
    }


@contextmanager
def process(services: ServiceSettings, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its URL, which it logs when it is ready."""
    started = subprocess.Popen(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env=environment(services, **settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    try:
        for line in started.stderr:
            if "ready on " in line:
                break
        yield started, line.split("ready on ")[1].strip()
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


@pytest.fixture
def worker(service_settings: ServiceSettings) -> Iterator[ScriptedWorker]:
    database = Database(service_settings.database_url)
    client = redis.Redis.from_url(service_settings.redis_url)
    events = RedisEventLog(client, service_settings.redis_prefix, 60)
    yield ScriptedWorker(PostgresJobStore(database), events)
    client.close()
    database.close()


def test_streams_end_at_sigterm_and_go_on_at_the_next_process(
    service_settings: ServiceSettings, worker: ScriptedWorker
) -> None:
    tokens = tokens_of(("one ", "two ", "three"))
    lines: list[str] = []
    with process(service_settings) as (first, url), httpx2.Client(base_url=url, timeout=30) as http:
        job_id = http.post("/v1/jobs", json=BODY).json()["id"]
        job = worker.claim(job_id)
        worker.say(job, tokens[:1])
        chat = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        chunks = chat.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True)
        chat_job = worker.claim()
        worker.say(chat_job, tokens[:1])
        assert [next(chunks).choices[0].delta.content for _ in range(2)] == ["", "one "]
        with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            for line in stream.iter_lines():
                lines.append(line)
                if line == "id: 2":
                    first.send_signal(signal.SIGTERM)
                    began = time.monotonic()
        with pytest.raises(openai.APIError, match=f"/v1/jobs/{chat_job.id}/events"):
            list(chunks)
        chat.close()
        assert first.wait(20) in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 9, "a graceful end waits for no stream"
    assert not any("job.completed" in line for line in lines)
    worker.say(job, tokens[1:], after=1)
    worker.finish(job, tokens)
    with process(service_settings) as (_, url), httpx2.Client(base_url=url, timeout=30) as http:
        rest = http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": "2"}).text
        assert [json.loads(line[6:]).get("text") for line in rest.splitlines() if line.startswith("data: ")] == [
            "two ", "three", None,
        ]  # fmt: skip
        assert http.get(f"/v1/jobs/{chat_job.id}").json()["status"] == "in_progress"


def test_plain_chat_at_sigterm_is_cancelled_and_may_be_repeated(
    service_settings: ServiceSettings, worker: ScriptedWorker
) -> None:
    with process(service_settings) as (started, url), ThreadPoolExecutor(1) as pool:
        asking = pool.submit(httpx2.post, f"{url}/v1/chat/completions", json=BODY, timeout=30)
        job = worker.claim()
        started.send_signal(signal.SIGTERM)
        answer = asking.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_closing")
    assert "x-should-retry" not in answer.headers and answer.headers["retry-after"] == "1"
    assert worker.store.get(job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.invalid"])
def test_open_address_without_any_key_is_refused_with_the_remedy(service_settings: ServiceSettings, host: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env=environment(service_settings, VLMQ_API_HOST=host),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "vlmq keys create" in ended.stderr and host in ended.stderr
    assert "Traceback" not in ended.stderr


def test_open_address_with_a_key_asks_everybody_for_it(service_settings: ServiceSettings) -> None:
    database = Database(service_settings.database_url)
    _, secret = PostgresApiKeys(database).create("team", "test")
    database.close()
    with process(service_settings, VLMQ_API_HOST="0.0.0.0") as (_, url):
        local = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{local}/v1/models", timeout=10).status_code == 401
        headers = {"authorization": f"Bearer {secret}"}
        assert httpx2.get(f"{local}/v1/models", headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("VLMQ_API_PORT", "http"), ("VLMQ_API_MAX_IMAGES", "-1"), ("VLMQ_DATABASE_URL", "")]
)
def test_wrong_setting_stops_the_process_with_its_name(
    service_settings: ServiceSettings, name: str, value: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "api"],
        cwd=ROOT,
        env=environment(service_settings) | {name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert name in ended.stderr
    assert "Traceback" not in ended.stderr


def test_redis_restarted_in_mid_stream_loses_and_repeats_nothing(private_services: Services, tmp_path: Path) -> None:
    services = ServiceSettings(
        database_url=private_services.database_url,
        redis_url=private_services.redis_url,
        redis_prefix="p:",
        blob_url=str(tmp_path),
    )
    database = Database(services.database_url)
    client = redis.Redis.from_url(services.redis_url)
    worker = ScriptedWorker(PostgresJobStore(database), RedisEventLog(client, "p:", 60))
    tokens = tokens_of([f"{n} " for n in range(6)])
    seen: list[int] = []
    with process(services) as (_, url), httpx2.Client(base_url=url, timeout=30) as http:
        job = worker.claim(http.post("/v1/jobs", json=BODY).json()["id"])
        worker.say(job, tokens[:3])
        with http.stream("GET", f"/v1/jobs/{job.id}/events") as stream:
            for line in stream.iter_lines():
                if not line.startswith("id: "):
                    continue
                seen.append(int(line[4:]))
                if seen[-1] == 4:
                    private_services.valkey.kill()
                    private_services.valkey.start(empty=True)
                    worker.save(job, tokens[:4])
                    worker.finish(job, tokens)
    client.close()
    database.close()
    assert seen == list(range(9))


def test_process_that_cannot_feed_its_readers_ends_so_that_another_may_start(
    service_settings: ServiceSettings, worker: ScriptedWorker
) -> None:
    with process(service_settings) as (started, url), httpx2.Client(base_url=url, timeout=30) as http:
        job_id = http.post("/v1/jobs", json=BODY).json()["id"]
        with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
            with psycopg.connect(service_settings.database_url, autocommit=True) as connection:
                connection.execute("UPDATE jobs SET state = 'nowhere' WHERE id = %s", [job_id])
            assert "job.queued" in stream.read().decode()
        assert started.wait(30) == 3
