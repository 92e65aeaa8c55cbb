"""A job that costs every engine its memory: quarantined in the end, and done when it is given back."""

import contextlib
import random
import time
from typing import Any

import httpx2
import psutil
import redis

from jobs.event_log import stream_key
from tests.chaos.cluster import MODEL
from tests.chaos.stage import CANARY_S, Stage, since
from tests.fixtures.eventually import eventually

LOOK_S = 0.02
# More tokens than a fast engine draws in the moments from the first one of each attempt until its death.
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Poison"}],
    "max_tokens": 800,
    "ignore_eos": True,
}


def poisonous_job(stage: Stage, dice: random.Random) -> float | None:
    """Whatever engine draws a token of it is killed, until the job is put away. It can be given back, and is done
    then."""
    url = stage.cluster.urls[0]
    job_id = _insist("POST", f"{url}/v1/jobs", 201, json=BODY)["id"]
    began = time.monotonic()
    watched = 0
    published: int | None = None
    while (row := _row(stage, job_id))["state"] in ("queued", "in_progress") and since(began) < CANARY_S:
        if row["attempt"] > watched:
            # From here on an earlier attempt publishes no more: it was taken from that one.
            published, watched = _published(stage, job_id), row["attempt"]
        elif published is not None and _published(stage, job_id) > published:
            _kill_engine_of(stage, row["worker"] or "")
            published = None
        time.sleep(LOOK_S)
    assert row["state"] == "failed", f"the poisonous job is {row['state']} after {row['attempt']} attempts"
    recovered = since(began)
    _insist("POST", f"{url}/v1/jobs/{job_id}/requeue", 200)
    eventually("the job that was given back ends", lambda: _row(stage, job_id)["state"] == "incomplete", CANARY_S)
    return recovered


def _row(stage: Stage, job_id: str) -> dict[str, Any]:
    (row,) = stage.ledger.patiently("SELECT state, attempt, worker FROM jobs WHERE id = %s", job_id)
    return row


def _published(stage: Stage, job_id: str) -> int:
    """How many events its log has; 0 while there is none."""
    settings = stage.cluster.settings
    with redis.Redis.from_url(settings.redis_url) as client:
        newest: Any = client.xrevrange(stream_key(settings.redis_prefix, job_id), count=1)
    return int(newest[0][0].partition(b"-")[0]) if newest else 0


def _kill_engine_of(stage: Stage, worker: str) -> None:
    for name in stage.workers():
        if f":{stage.cluster.running[name].popen.pid}:" in worker:
            engine = stage.cluster.engine(name)
            with contextlib.suppress(psutil.NoSuchProcess):
                if engine is not None:
                    engine.kill()


def _insist(method: str, url: str, status: int, **more: Any) -> dict[str, Any]:
    """The answer, once it is the right one."""
    answers: list[httpx2.Response] = []

    def done() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            answers.append(httpx2.request(method, url, timeout=30, **more))
            return answers[-1].status_code == status
        return False

    eventually(f"{method} {url} answers {status}", done, CANARY_S)
    return dict(answers[-1].json())
