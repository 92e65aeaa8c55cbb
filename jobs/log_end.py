"""How the log of a job ends that has ended: both sides do it, whoever finds the row terminal and the log open.

The row is what ends a job and is written first; here the log only follows it.
"""

from jobs.events import log_of, tokens_of
from jobs.job import Job
from jobs.ports import EventLog, JobStore


def end_log(store: JobStore, event_log: EventLog, job: Job) -> Job:
    """Closes the log of a terminal job that is not purged, and returns the job as its row then is. The log of one that
    was ended from outside its worker may hold tokens that the row has not: they were seen, so the row gets them.
    Idempotent. Raises JobNotFound when the job is deleted meanwhile, StreamUnavailable, StoreUnavailable."""
    published = tokens_of(event_log.end(job.id, log_of(job)))
    return store.extend_tokens(job.id, published) if len(published) > len(job.tokens) else job
