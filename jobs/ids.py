"""Ids of jobs and of what belongs to them: ordered by time, so that rows made together lie together. The prefix tells
what it is, and of a job, through which door it came."""

import secrets
import time

from jobs.job import JobKind

PREFIXES: dict[JobKind, str] = {JobKind.JOB: "job_", JobKind.CHAT_COMPLETION: "chatcmpl-", JobKind.RESPONSE: "resp_"}


def new_job_id(kind: JobKind) -> str:
    return new_id(PREFIXES[kind])


def new_id(prefix: str) -> str:
    """The prefix and 32 hex digits of a UUID version 7 (RFC 9562): 48 bits of milliseconds, the rest random."""
    number = int(time.time() * 1000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"{prefix}{number:032x}"
