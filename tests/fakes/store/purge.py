"""What was not to be stored goes after its end; the bare job stays."""

import itertools
from dataclasses import replace

from jobs.request import ChatRequest, Sampling
from jobs.store.purge import PURGED
from tests.fakes.store.rows import Rows


def purge(rows: Rows, job_id: str) -> bool:
    job = rows.jobs.get(job_id)
    if job is None or job.timeline.done_at is None or job.origin.stored or job.purged_at is not None:
        return False
    rows.attempts[job_id] = [replace(attempt, detail="") for attempt in rows.attempts[job_id]]
    bare = replace(job, request=ChatRequest((), Sampling(seed=0)), metadata={}, tokens=())
    error = None if job.error is None else replace(job.error, message=PURGED)
    origin = replace(job.origin, door={}, webhook=None)
    rows.put(replace(bare, error=error, origin=origin, purged_at=rows.now()))
    return True


def purge_unstored(rows: Rows, age_s: float, limit: int) -> list[str]:
    before = rows.ago(age_s)
    ended = [(job.timeline.done_at, job.id) for job in rows.jobs.values() if job.timeline.done_at is not None]
    old = (job_id for done_at, job_id in sorted(ended) if done_at < before)
    return list(itertools.islice((job_id for job_id in old if purge(rows, job_id)), limit))
