"""Ids of jobs: ordered by time, so that rows made together lie together; the prefix tells the door."""

import secrets
import time

from jobs.job import JobKind

PREFIXES: dict[JobKind, str] = {JobKind.JOB: "job_", JobKind.CHAT_COMPLETION: "chatcmpl-"}


def new_job_id(kind: JobKind) -> str:
    """The prefix and 32 hex digits of a UUID version 7 (RFC 9562): 48 bits of milliseconds, the rest random."""
    number = int(time.time() * 1000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"{PREFIXES[kind]}{number:032x}"
