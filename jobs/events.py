"""A job's event log as values: what each sequence number means. Knows no Redis.

    0                 queued
    1                 in_progress   (first claim; a later attempt adds nothing)
    2 … 1 + tokens    delta         one generated token each
    last              ended

The log is a function of the job's row, so it can be rebuilt from the row at any time, and a token has the same
sequence number whichever attempt drew it and however events were batched on their way.
"""

import msgspec

from jobs.job import Job, JobState, Token


class Queued(msgspec.Struct, frozen=True, array_like=True, tag="queued"):
    pass


class Started(msgspec.Struct, frozen=True, array_like=True, tag="in_progress"):
    pass


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="delta"):
    token: Token


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """The end of the log. What the end was like stands in the row, which is written first."""

    state: JobState


Event = Queued | Started | Delta | Ended

FIRST_DELTA = 2


def log_of(job: Job) -> list[Event]:
    """The whole log of a job as its row tells it; the index of an event is its sequence number."""
    log: list[Event] = [Queued()]
    if job.timeline.claimed_at is not None:
        log.append(Started())
        log.extend(Delta(token) for token in job.tokens)
    if job.state.terminal:
        log.append(Ended(job.state))
    return log


def tokens_of(log: list[Event]) -> tuple[Token, ...]:
    """The generated tokens of a log."""
    return tuple(event.token for event in log if isinstance(event, Delta))
