"""Ending the log of a job that was ended from outside its worker."""

import contextlib

from jobs.errors import JobNotFound
from jobs.events import log_of, tokens_of
from jobs.job import Job
from jobs.ports import EventLog, JobStore


def end_log(store: JobStore, event_log: EventLog, job: Job) -> None:
    """The log may hold tokens that the row has not: they were seen, so they are kept. Raises StreamUnavailable,
    StoreUnavailable."""
    tokens = tokens_of(event_log.end(job.id, log_of(job)))
    if len(tokens) > len(job.tokens):
        # Its owner may have deleted it since.
        with contextlib.suppress(JobNotFound):
            store.extend_tokens(job.id, tokens)
