"""How soon cancelled jobs stop costing the engine, measured from outside: by the time that its process computes."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil

from tests.chaos.requests import long_request
from tests.chaos.stage import Stage
from tests.fixtures.eventually import eventually

JOBS = 8
WITHIN_S = 1.0
LOOK_S = 0.1
IDLE = 0.3
"""An engine that idles computes for less than this share of a look; one that decodes, for nearly all of it."""
QUIET_LOOKS = 4
LIMIT_S = 20.0


def stops_in_s(stage: Stage) -> float:
    """From the last cancel's answer until no engine computes. Nothing else may run."""
    url = stage.cluster.urls[0]
    engines = [engine for name in stage.workers() if (engine := stage.cluster.engine(name)) is not None]
    body = long_request().chat()
    with ThreadPoolExecutor(JOBS) as threads:
        made = list(threads.map(lambda _: httpx2.post(f"{url}/v1/jobs", json=body, timeout=30), range(JOBS)))
        ids = [answer.json()["id"] for answer in made]
        eventually("all of them stream", lambda: all(_job(url, each)["output"] for each in ids))
        eventually("an engine computes", lambda: _busy(engines))
        answers = list(threads.map(lambda each: httpx2.post(f"{url}/v1/jobs/{each}/cancel", timeout=30), ids))
    cancelled = time.monotonic()
    assert {answer.status_code for answer in answers} == {200}, [answer.text[:200] for answer in answers]
    return _until_quiet(engines) - cancelled


def _job(url: str, job_id: str) -> dict[str, object]:
    return dict(httpx2.get(f"{url}/v1/jobs/{job_id}", timeout=30).json())


def _until_quiet(engines: list[psutil.Process]) -> float:
    """The instant since which no engine has computed."""
    end = time.monotonic() + LIMIT_S
    quiet_since, looks = time.monotonic(), 0
    while looks < QUIET_LOOKS:
        assert time.monotonic() < end, f"an engine still computes {LIMIT_S:g} s after the cancels"
        if _busy(engines):
            quiet_since, looks = time.monotonic(), 0
        else:
            looks += 1
    return quiet_since


def _busy(engines: list[psutil.Process]) -> bool:
    """Whether one of them computes for the next moment."""
    before = [_computed_s(engine) for engine in engines]
    time.sleep(LOOK_S)
    return any(_computed_s(engine) - b > IDLE * LOOK_S for engine, b in zip(engines, before, strict=True))


def _computed_s(engine: psutil.Process) -> float:
    times = engine.cpu_times()
    return float(times.user + times.system)
