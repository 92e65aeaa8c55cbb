"""The store of jobs in memory, with a clock to turn. Passes the contract of the real one."""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from jobs.errors import JobExists, JobNotFinished
from jobs.idempotency import IdempotencyKey
from jobs.job import Attempt, AttemptEnd, Job, JobState, NewJob, Outcome, Priority, Token
from jobs.limits import UNLIMITED, KeyLimits
from jobs.ports import Depth, JobFilter, Partial, WorkerRecord, WorkerStatus
from jobs.queue_place import Lines, QueuePlace
from tests.fakes.idempotency import FakeIdempotencyKeys
from tests.fakes.limits import FakeKeyUsage
from tests.fakes.store import attempt as attempts
from tests.fakes.store import depth, intake, purge, sweep
from tests.fakes.store.ending import Endings
from tests.fakes.store.fleet import Fleet
from tests.fakes.store.rows import Rows
from tests.fakes.store.shares import Shares


class FakeJobStore:
    """`now` is called for every instant; by default the time of this machine. Each call holds the one lock; the parts
    know nothing of it."""

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        idempotency: FakeIdempotencyKeys | None = None,
        usage: FakeKeyUsage | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._usage = usage or FakeKeyUsage(now)
        self._idempotency = idempotency or FakeIdempotencyKeys(now)
        self._rows = Rows(now)
        self._fleet = Fleet(now)
        self._shares = Shares(self._rows)
        self._endings = Endings(self._rows, self._shares, self._usage)
        self.weights = self._shares.weights

    def insert(self, job: NewJob, idempotency: IdempotencyKey | None = None, limits: KeyLimits = UNLIMITED) -> Job:
        with self._lock:
            if job.id in self._rows.jobs:
                raise JobExists(job.id)
            key_id = job.origin.key_id if limits.any else None
            if key_id is not None:
                self._usage.check(key_id, limits, job.cost, self._rows.active(key_id))
            if idempotency is not None:
                self._idempotency.claim(idempotency, job.id)
            if key_id is not None:
                self._usage.charge(key_id, limits, 1, job.cost)
            self._shares.enter(job)
            return self._rows.add(intake.queued(job, self._rows.now()))

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            return self._rows.get(job_id, tenant)

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        with self._lock:
            return {job_id: self._rows.jobs[job_id] for job_id in job_ids if job_id in self._rows.jobs}

    def page(self, tenant: str, filter: JobFilter) -> list[Job]:
        with self._lock:
            return intake.page(self._rows, tenant, filter)

    def attempts(self, job_id: str) -> list[Attempt]:
        with self._lock:
            return list(self._rows.attempts.get(job_id, []))

    def delete(self, job_id: str, tenant: str) -> None:
        with self._lock:
            job = self._rows.get(job_id, tenant)
            if not job.state.terminal:
                raise JobNotFinished(job_id, job.state)
            self._rows.remove(job_id)
            self._idempotency.forget(job_id)

    def queue_place(self, job: Job) -> QueuePlace | None:
        with self._lock:
            return depth.queue_place(self._rows, self._shares, job)

    def lines(self) -> Lines:
        with self._lock:
            return depth.lines(self._rows, self._shares)

    def depths(self) -> list[Depth]:
        with self._lock:
            return depth.depths(self._rows)

    def claim(self, model: str, worker: str, lowest: Priority = Priority.BATCH) -> Job | None:
        with self._lock:
            waiting = [job for job in self._rows.open(model) if job.priority <= lowest]
            if not waiting:
                return None
            job = self._shares.first(waiting)
            self._shares.claim(job)
            return attempts.begin(self._rows, job, worker)

    def save_partials(self, partials: Sequence[Partial]) -> frozenset[str]:
        with self._lock:
            return attempts.save_partials(self._rows, partials)

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> Job:
        with self._lock:
            if self._rows.closed_as(job_id, attempt, AttemptEnd.FINISHED):
                return self._rows.jobs[job_id]
            job = attempts.with_outcome(self._rows, self._rows.current(job_id, attempt), outcome)
            return self._endings.end(job, outcome.state, AttemptEnd.FINISHED, error=outcome.error)

    def give_back(self, job_id: str, attempt: int, end: AttemptEnd, detail: str, tokens: Sequence[Token]) -> Job:
        with self._lock:
            if self._rows.closed_as(job_id, attempt, end):
                return self._rows.jobs[job_id]
            job = attempts.with_tokens(self._rows, self._rows.current(job_id, attempt), tokens)
            return self._endings.return_or_bury(job, end, detail)

    def not_ours(self, worker: str, running: Mapping[str, int]) -> frozenset[str]:
        with self._lock:
            return frozenset(
                job_id
                for job_id, attempt in running.items()
                if not self._rows.is_current(job_id, attempt) or self._rows.jobs[job_id].worker != worker
            )

    def give_back_unknown(self, worker: str, running: Collection[str], older_than_s: float) -> list[Job]:
        with self._lock:
            before = self._rows.ago(older_than_s)
            return [
                self._endings.return_or_bury(job, AttemptEnd.DRAINED, "the worker never heard that its claim succeeded")
                for job in self._rows.held_by(worker)
                if job.id not in running and self._rows.attempts[job.id][-1].started_at < before
            ]

    def heartbeat(self, worker: WorkerRecord) -> None:
        with self._lock:
            self._fleet.heartbeat(worker)

    def retire(self, worker_id: str) -> None:
        with self._lock:
            self._fleet.retire(worker_id)
            for job in self._rows.held_by(worker_id):
                detail = f"worker {worker_id} left without giving it back"
                self._endings.return_or_bury(job, AttemptEnd.LEASE_EXPIRED, detail)

    def workers(self, lease_s: float) -> list[WorkerStatus]:
        with self._lock:
            return self._fleet.statuses(lease_s)

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            job = self._rows.get(job_id, tenant)
            if job.state.terminal:
                return job
            return replace(self._endings.end(job, JobState.CANCELLED, AttemptEnd.CANCELLED), worker=job.worker)

    def label(self, job_id: str, tenant: str, metadata: Mapping[str, str]) -> Job:
        with self._lock:
            return self._rows.put(replace(self._rows.get(job_id, tenant), metadata=dict(metadata)))

    def extend_tokens(self, job_id: str, tokens: Sequence[Token]) -> Job:
        with self._lock:
            job = self._rows.get(job_id)
            stopped = job.state in (JobState.CANCELLED, JobState.FAILED) and job.purged_at is None
            if stopped and len(tokens) > len(job.tokens):
                job = self._rows.put(replace(job, tokens=tuple(tokens)))
            return job

    def requeue(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            return self._endings.reopen(self._rows.get(job_id, tenant))

    def heed_clock(self, lease_s: float) -> None:
        with self._lock:
            self._fleet.heed_clock(lease_s)

    def take_back_lost(self, lease_s: float, limit: int = 500) -> list[Job]:
        with self._lock:
            return sweep.take_back_lost(self._rows, self._fleet, self._endings, lease_s, limit)

    def claimable(self, limit: int) -> dict[str, list[str]]:
        with self._lock:
            return sweep.claimable(self._rows, limit)

    def fail_past_deadline(self, limit: int = 500) -> list[Job]:
        with self._lock:
            return sweep.fail_past_deadline(self._rows, self._endings, limit)

    def expire(self, retention_s: float, limit: int = 500) -> list[str]:
        with self._lock:
            return sweep.expire(self._rows, retention_s, limit)

    def purge(self, job_id: str) -> bool:
        with self._lock:
            return purge.purge(self._rows, job_id)

    def purge_unstored(self, age_s: float, limit: int = 500) -> list[str]:
        with self._lock:
            return purge.purge_unstored(self._rows, age_s, limit)

    def forget_idle_shares(self, idle_s: float, limit: int = 500) -> int:
        with self._lock:
            return self._shares.forget_idle(idle_s, limit)

    def orphan_blobs(self, digests: Sequence[str]) -> frozenset[str]:
        with self._lock:
            return frozenset(digests).difference(*(job.request.blobs() for job in self._rows.jobs.values()))
