"""Hostile words through every door that they can come in by, and the logs of the processes behind it."""

import json
import re
import urllib.parse
from pathlib import Path

import httpx2
import pytest
import redis

from cli.services import Services
from jobs.job import JobState
from jobs.queue import queue_name
from jobs.request import ImagePart, TextPart
from jobs.settings import ServiceSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.worker import MODEL, open_bench
from tests.integration.test_api_process import process
from tests.integration.test_forged_messages import message

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HOSTILE = "x\r\n1999-01-01 00:00:00,000 INFO api: forged\x1b[31m\u20281999"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [\w.]+: ")


def forged_lines(log: str) -> list[str]:
    """Lines that begin as the hostile words do behind their line ends, and lines that steer a terminal."""
    lines = re.split("[\n\r\x0b\x0c\x85\u2028\u2029]", log)
    return [line for line in lines if line.startswith("1999") or "\x1b" in line]


def knock(http: httpx2.Client) -> None:
    """Everything that a client may name."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": HOSTILE}]}
    quoted = urllib.parse.quote(HOSTILE)
    http.post("/v1/chat/completions", json=body | {"model": HOSTILE})
    http.post("/v1/jobs", json=body | {"metadata": {"x": HOSTILE}, "user": HOSTILE})
    http.post("/v1/jobs", json=body | {HOSTILE: 1})
    http.post("/v1/jobs", json=body | {"webhook": {"url": f"https://example.org/{HOSTILE}"}})
    image = {"type": "image_url", "image_url": {"url": f"https://{HOSTILE}/"}}
    http.post("/v1/jobs", json=body | {"messages": [{"role": "user", "content": [image]}]})
    http.post("/v1/jobs", json=body, headers={"idempotency-key": quoted, "x-request-id": quoted, "user-agent": quoted})
    http.post("/v1/files", data={"purpose": "user_data"}, files={"file": (HOSTILE, b"bytes")})
    http.get(f"/v1/jobs/{quoted}")
    http.get(f"/{quoted}", params={"after": HOSTILE})
    http.post("/v1/jobs", content=HOSTILE.encode(), headers={"content-type": "application/json"})
    http.get("/v1/jobs", headers={"host": quoted, "authorization": f"Bearer {quoted}"})


def test_no_client_writes_lines_into_the_log_of_the_api(service_settings: ServiceSettings) -> None:
    with process(service_settings) as (running, url):
        with httpx2.Client(base_url=url, timeout=30) as http:
            knock(http)
            assert http.get("/healthz").status_code == 200
        running.terminate()
        assert running.stderr is not None
        log = running.stderr.read()
    assert "accepted job_" in log
    assert not forged_lines(log), log


def test_no_client_and_no_message_writes_lines_into_the_log_of_a_worker(
    services: Services, tiny_model: Path, tmp_path: Path
) -> None:
    with open_bench(services, tiny_model, tmp_path) as bench:
        worker = bench.start(VLMQ_WORKER_MEDIA_BACKOFF_S="0.01").wait_ready() or bench.started[-1]
        ids = [
            bench.submit(TextPart(HOSTILE), max_tokens=4, metadata={"x": HOSTILE}),
            bench.submit(ImagePart(f"https://{HOSTILE}.invalid/{HOSTILE}"), max_tokens=4),
            bench.submit(ImagePart(f"file:///{HOSTILE}"), max_tokens=4),
            bench.submit(ImagePart(f"blob:{HOSTILE}"), max_tokens=4),
        ]
        ended = [bench.wait(job_id) for job_id in ids]
        assert [job.state for job in ended][1:] == [JobState.FAILED] * 3
        queue = bench.settings.redis_prefix + queue_name(MODEL)
        with redis.Redis.from_url(bench.settings.redis_url) as client:
            for headers in ({"id": HOSTILE}, {"task": HOSTILE}, {"argsrepr": HOSTILE, "origin": HOSTILE}):
                client.lpush(queue, json.dumps(message(subject="job_unknown", headers=headers)))
            client.lpush(queue, json.dumps(message(subject=HOSTILE)))
            client.lpush(queue, HOSTILE)
            eventually("all messages were read", lambda: not client.llen(queue))
        assert worker.end() == 0
        log = worker.output()
    assert "attempt 1: failed" in log
    assert not forged_lines(log), log
    # Celery's own records have our form too, and with it its defence.
    assert [line for line in log.splitlines() if RECORD.match(line) and " celery." in line]
    assert not re.search(r"^\[\d{4}-", log, re.MULTILINE)
