"""A running attempt: how it begins, and what it writes. Every write applies only while the attempt is current."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from jobs.errors import StaleAttempt
from jobs.job import Attempt, Job, JobState, Outcome, Stamps, Token
from jobs.ports import Partial
from tests.fakes.store.rows import Rows


def begin(rows: Rows, job: Job, worker: str) -> Job:
    timeline = replace(job.timeline, claimed_at=job.timeline.claimed_at or rows.now())
    claimed = replace(job, state=JobState.IN_PROGRESS, attempt=job.attempt + 1, worker=worker, timeline=timeline)
    rows.attempts[job.id].append(Attempt(claimed.attempt, worker, rows.now()))
    return rows.put(claimed)


def save_partials(rows: Rows, partials: Sequence[Partial]) -> frozenset[str]:
    stale = set()
    for partial in partials:
        try:
            job = rows.current(partial.job_id, partial.attempt)
        except StaleAttempt:
            stale.add(partial.job_id)
            continue
        rows.put(with_tokens(rows, _stamped(rows, job, partial.stamps), partial.tokens))
    return frozenset(stale)


def with_outcome(rows: Rows, job: Job, outcome: Outcome) -> Job:
    job = with_tokens(rows, _stamped(rows, job, outcome.stamps), outcome.tokens)
    return replace(job, usage=outcome.usage, finish_reason=outcome.finish_reason, finish_reasons=outcome.finish_reasons)


def with_tokens(rows: Rows, job: Job, tokens: Sequence[Token]) -> Job:
    longer = job.tokens + tuple(tokens[len(job.tokens) :])
    first_token_at = job.timeline.first_token_at or (rows.now() if longer else None)
    return replace(job, tokens=longer, timeline=replace(job.timeline, first_token_at=first_token_at))


def _stamped(rows: Rows, job: Job, stamps: Stamps) -> Job:
    def at(ago_s: float | None) -> datetime | None:
        return None if ago_s is None else rows.ago(ago_s)

    known = job.timeline
    prepared_at = known.prepared_at or at(stamps.prepared_s)
    first_token_at = known.first_token_at or at(stamps.first_token_s)
    return replace(job, timeline=replace(known, prepared_at=prepared_at, first_token_at=first_token_at))
