"""A job that costs every engine its memory: quarantined in the end, and done when it is given back."""

import contextlib
import random
import time
from typing import Any

import httpx2
import psutil

from tests.chaos.cluster import MODEL
from tests.chaos.stage import CANARY_S, Stage, since
from tests.fixtures.eventually import eventually


def poisonous_job(stage: Stage, dice: random.Random) -> float | None:
    """A job that costs every engine its memory: whoever runs it is killed, until the job is put away. It can be given
    back, and is done then."""
    url = stage.cluster.urls[0]
    # More tokens than the fastest engine draws before its fourth death: each comes within a few dozen.
    asked = {"max_tokens": 3000, "ignore_eos": True}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Poison"}], **asked}
    job_id = _insist("POST", f"{url}/v1/jobs", 201, json=body)["id"]
    began = time.monotonic()
    seen = 0
    while since(began) < CANARY_S and (state := _state(stage, job_id)) in ("queued", "in_progress"):
        # A token more than last time: it is in an engine now, not only claimed by a worker.
        if (tokens := _tokens(url, job_id, enough=seen + 1)) > seen:
            _kill_engine_of(stage, job_id)
            time.sleep(0.5)
            seen = max(tokens, _tokens(url, job_id, enough=10**9))
        time.sleep(0.05)
    assert state == "failed", f"the poisonous job is {state}"
    recovered = since(began)
    _insist("POST", f"{url}/v1/jobs/{job_id}/requeue", 200)
    eventually("the job that was given back ends", lambda: _state(stage, job_id) == "incomplete", CANARY_S)
    return recovered


def _kill_engine_of(stage: Stage, job_id: str) -> None:
    (row,) = stage.ledger.patiently("SELECT worker FROM jobs WHERE id = %s", job_id)
    for name in stage.workers():
        if f":{stage.cluster.running[name].popen.pid}:" in (row["worker"] or ""):
            engine = stage.cluster.engine(name)
            with contextlib.suppress(psutil.NoSuchProcess):
                if engine is not None:
                    engine.kill()


def _state(stage: Stage, job_id: str) -> str:
    (row,) = stage.ledger.patiently("SELECT state FROM jobs WHERE id = %s", job_id)
    return str(row["state"])


def _tokens(url: str, job_id: str, enough: int) -> int:
    """How many its log has by now, counted up to `enough`; what comes after a pause is left for the next count."""
    deltas = 0
    patience = httpx2.Timeout(5, read=0.2)
    with (
        contextlib.suppress(httpx2.TransportError),
        httpx2.stream("GET", f"{url}/v1/jobs/{job_id}/events", timeout=patience) as answer,
    ):
        for line in answer.iter_lines():
            deltas += line.startswith("event: job.delta")
            if deltas >= enough:
                break
    return deltas


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
