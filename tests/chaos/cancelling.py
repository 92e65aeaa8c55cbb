"""How soon cancelled jobs stop costing the engine, measured from outside: by the time that its process computes."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.chaos.quiet import busy, until_quiet
from tests.chaos.requests import long_request
from tests.chaos.stage import Stage
from tests.fixtures.eventually import eventually

JOBS = 8
WITHIN_S = 1.0


def stops_in_s(stage: Stage) -> float:
    """From the last cancel's answer until no engine computes. Nothing else may run."""
    url = stage.cluster.urls[0]
    engines = [engine for name in stage.workers() if (engine := stage.cluster.engine(name)) is not None]
    body = long_request().chat()
    with ThreadPoolExecutor(JOBS) as threads:
        made = list(threads.map(lambda _: httpx2.post(f"{url}/v1/jobs", json=body, timeout=30), range(JOBS)))
        ids = [answer.json()["id"] for answer in made]
        eventually("all of them stream", lambda: all(_job(url, each)["output"] for each in ids))
        eventually("an engine computes", lambda: busy(engines))
        answers = list(threads.map(lambda each: httpx2.post(f"{url}/v1/jobs/{each}/cancel", timeout=30), ids))
    cancelled = time.monotonic()
    assert {answer.status_code for answer in answers} == {200}, [answer.text[:200] for answer in answers]
    return until_quiet(engines) - cancelled


def _job(url: str, job_id: str) -> dict[str, object]:
    return dict(httpx2.get(f"{url}/v1/jobs/{job_id}", timeout=30).json())
