"""Two hundred readers of twenty logs that are being written, each dropping its connection and resuming, ten times."""

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from jobs.job import Job
from tests.fixtures.api import MODEL, ScriptedWorker, ServedApi, tokens_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

JOBS, READERS, DROPS = 20, 200, 10
TOKENS = tokens_of([f"{number} " for number in range(30)])
ENDS = ("job.completed", "response.completed")


async def events_of(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Each event's data, whose number is the event's id."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            assert int(fields["id"]) == number_of(event)
            yield event
            fields = {}
        else:
            fields = {}


def number_of(event: dict[str, Any]) -> int:
    number = event["sequence"] if "sequence" in event else event["sequence_number"]
    assert isinstance(number, int)
    return number


def log_url(job_id: str) -> tuple[str, dict[str, str]]:
    """Where a job's log is read, as a job or as a response."""
    if job_id.startswith("resp_"):
        return f"/v1/responses/{job_id}", {"stream": "true"}
    return f"/v1/jobs/{job_id}/events", {}


async def read(http: httpx2.AsyncClient, job_id: str, chance: random.Random, drops: int) -> list[dict[str, Any]]:
    """Everything that one reader gets, whose connection breaks `drops` times behind an event taken at random."""
    got: list[dict[str, Any]] = []
    path, query = log_url(job_id)
    while not got or got[-1]["type"] not in ENDS:
        at = {"starting_after": str(number_of(got[-1]))} if got else {}
        left = chance.randint(1, 3) if drops else -1
        drops -= 1 if drops else 0
        async with http.stream("GET", path, params=query | at) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for event in events_of(answer):
                got.append(event)
                left -= 1
                if left == 0 or event["type"] in ENDS:
                    break
    return got


def write(worker: ScriptedWorker, jobs: list[Job]) -> None:
    """A token for each job, and again, and then their ends."""
    for place, token in enumerate(TOKENS):
        for job in jobs:
            worker.say(job, [token], place)
        time.sleep(0.02)
    for job in jobs:
        worker.finish(job, TOKENS)


async def test_every_reader_gets_exactly_the_log_however_often_it_drops(api: ServedApi) -> None:
    with api.client() as http:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}]}
        background = {"model": MODEL, "input": "Count.", "background": True}
        half = range(JOBS // 2)
        ids = [http.post("/v1/jobs", json=asked).json()["id"] for _ in half]
        ids += [http.post("/v1/responses", json=background).json()["id"] for _ in half]
    writing = threading.Thread(target=write, args=(api.worker, [api.worker.claim() for _ in ids]))
    writing.start()
    limits = httpx2.Limits(max_connections=READERS, max_keepalive_connections=READERS)
    async with httpx2.AsyncClient(base_url=api.url, timeout=300, limits=limits) as http:
        readers = [read(http, ids[n % JOBS], random.Random(n), DROPS) for n in range(READERS)]
        logs = await asyncio.gather(*readers)
        replayed = {job_id: await read(http, job_id, random.Random(0), 0) for job_id in ids}
    await asyncio.to_thread(writing.join)
    for n, log in enumerate(logs):
        assert log == replayed[ids[n % JOBS]]
        assert [number_of(event) for event in log] == list(range(len(log)))
        assert said(log) == "".join(token.text for token in TOKENS)


def said(log: list[dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in log if event["type"] == "job.delta") + "".join(
        event["delta"] for event in log if event["type"] == "response.output_text.delta"
    )
