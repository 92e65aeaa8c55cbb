"""The port JobStore on PostgreSQL: each call is one transaction of the functions beside this file."""

from collections.abc import Collection, Mapping, Sequence
from uuid import uuid4

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from jobs.database import Database
from jobs.errors import JobExists
from jobs.idempotency import IdempotencyKey
from jobs.job import Attempt, AttemptEnd, Job, NewJob, Outcome, Priority, Token
from jobs.limits import UNLIMITED, KeyLimits
from jobs.ports import Depth, JobFilter, Partial, WorkerRecord, WorkerStatus
from jobs.queue_place import Lines, QueuePlace
from jobs.store import attempt as attempts
from jobs.store import claim, client, depth, fleet, intake, purge, shares, sweep

CLAIM_PATIENCE_S = 5.0
"""Longer than a broken connection needs to be noticed; a claim is not worth waiting for a database that is away."""


class PostgresJobStore:
    """`patience_s` is how long the writes of an attempt are tried again while the database does not answer: a worker
    wants minutes, so that a result outlives a restart of the database; the API wants none."""

    def __init__(self, database: Database, patience_s: float = 0.0) -> None:
        self._database = database
        self._patience_s = patience_s

    def insert(self, job: NewJob, idempotency: IdempotencyKey | None = None, limits: KeyLimits = UNLIMITED) -> Job:
        try:
            if idempotency is None and not limits.any:
                return self._database.statement(lambda on: intake.insert_job(on, job))
            return self._database.transaction(lambda on: intake.insert_checked(on, job, idempotency, limits))
        except IntegrityError as exc:
            if isinstance(exc.orig, psycopg.errors.UniqueViolation):
                raise JobExists(job.id) from exc
            raise

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        return self._database.statement(lambda on: intake.get_job(on, job_id, tenant))

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        return self._database.statement(lambda on: intake.get_jobs(on, job_ids))

    def page(self, tenant: str, filter: JobFilter) -> list[Job]:
        return self._database.statement(lambda on: intake.page(on, tenant, filter))

    def attempts(self, job_id: str) -> list[Attempt]:
        return self._database.statement(lambda on: intake.attempts(on, job_id))

    def delete(self, job_id: str, tenant: str) -> None:
        self._database.transaction(lambda on: intake.delete_job(on, job_id, tenant))

    def queue_place(self, job: Job) -> QueuePlace | None:
        return self._database.statement(lambda on: depth.queue_place(on, job.id))

    def lines(self) -> Lines:
        return self._database.statement(depth.lines)

    def depths(self) -> list[Depth]:
        return self._database.statement(depth.depths)

    def claim(self, model: str, worker: str, lowest: Priority = Priority.BATCH) -> Job | None:
        name = uuid4().hex
        tried = False

        def work(on: Connection) -> Job | None:
            nonlocal tried
            known = claim.claimed_by(on, name) if tried else None
            tried = True
            return known or claim.claim_next(on, model, worker, name, lowest)

        return self._database.statement(work, min(self._patience_s, CLAIM_PATIENCE_S))

    def save_partials(self, partials: Sequence[Partial]) -> frozenset[str]:
        if not partials:
            return frozenset()
        return self._database.transaction(lambda on: attempts.save_partials(on, partials), self._patience_s)

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> Job:
        return self._database.transaction(lambda on: attempts.finish(on, job_id, attempt, outcome), self._patience_s)

    def give_back(self, job_id: str, attempt: int, end: AttemptEnd, detail: str, tokens: Sequence[Token]) -> Job:
        return self._database.transaction(
            lambda on: attempts.give_back(on, job_id, attempt, end, detail, tokens), self._patience_s
        )

    def not_ours(self, worker: str, running: Mapping[str, int]) -> frozenset[str]:
        if not running:
            return frozenset()
        return self._database.statement(lambda on: fleet.not_ours(on, worker, running))

    def give_back_unknown(self, worker: str, running: Collection[str], older_than_s: float) -> list[Job]:
        return self._database.transaction(lambda on: fleet.give_back_unknown(on, worker, running, older_than_s))

    def heartbeat(self, worker: WorkerRecord) -> None:
        self._database.statement(lambda on: fleet.heartbeat(on, worker))

    def retire(self, worker_id: str) -> None:
        self._database.transaction(lambda on: fleet.retire(on, worker_id))

    def workers(self, lease_s: float) -> list[WorkerStatus]:
        return self._database.statement(lambda on: fleet.list_workers(on, lease_s))

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        return self._database.transaction(lambda on: client.cancel(on, job_id, tenant))

    def label(self, job_id: str, tenant: str, metadata: Mapping[str, str]) -> Job:
        return self._database.transaction(lambda on: client.label(on, job_id, tenant, metadata))

    def extend_tokens(self, job_id: str, tokens: Sequence[Token]) -> Job:
        return self._database.transaction(lambda on: client.extend_tokens(on, job_id, tokens))

    def requeue(self, job_id: str, tenant: str | None = None) -> Job:
        return self._database.transaction(lambda on: client.requeue(on, job_id, tenant))

    def heed_clock(self, lease_s: float) -> None:
        self._database.statement(lambda on: sweep.heed_clock(on, lease_s))

    def take_back_lost(self, lease_s: float, limit: int = 500) -> list[Job]:
        return self._database.transaction(lambda on: sweep.take_back_lost(on, lease_s, limit))

    def claimable(self, limit: int) -> dict[str, list[str]]:
        return self._database.statement(lambda on: sweep.claimable(on, limit))

    def fail_past_deadline(self, limit: int = 500) -> list[Job]:
        return self._database.transaction(lambda on: sweep.fail_past_deadline(on, limit))

    def expire(self, retention_s: float, limit: int = 500) -> list[str]:
        return self._database.statement(lambda on: sweep.expire(on, retention_s, limit))

    def purge(self, job_id: str) -> bool:
        return self._database.statement(lambda on: purge.purge(on, job_id))

    def purge_unstored(self, age_s: float, limit: int = 500) -> list[str]:
        return self._database.statement(lambda on: purge.purge_unstored(on, age_s, limit))

    def forget_idle_shares(self, idle_s: float, limit: int = 500) -> int:
        return self._database.statement(lambda on: shares.forget_idle(on, idle_s, limit))

    def orphan_blobs(self, digests: Sequence[str]) -> frozenset[str]:
        return self._database.statement(lambda on: sweep.orphan_blobs(on, digests))
