"""The store of jobs in memory, with a clock to turn. Passes the contract of the real one."""

import itertools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from jobs import transitions
from jobs.errors import IllegalTransition, JobExists, JobNotFinished, JobNotFound, JobPurged, StaleAttempt
from jobs.idempotency import IdempotencyKey
from jobs.job import Attempt, AttemptEnd, Job, JobError, JobState, NewJob, Outcome, Priority, Stamps, Timeline, Token
from jobs.limits import UNLIMITED, KeyLimits
from jobs.ports import Depth, JobFilter, Partial, WorkerRecord, WorkerStatus
from jobs.queue_place import Line, Lines, QueuePlace, Waiting, place_of
from jobs.request import ChatRequest, Sampling
from jobs.store.purge import PURGED
from tests.fakes.idempotency import FakeIdempotencyKeys
from tests.fakes.limits import FakeKeyUsage


def _lane(job: NewJob | Job) -> tuple[str, int, str]:
    return job.model, job.priority, job.tenant


class FakeJobStore:
    """`now` is called for every instant; by default the time of this machine."""

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        idempotency: FakeIdempotencyKeys | None = None,
        usage: FakeKeyUsage | None = None,
    ) -> None:
        self._now = now
        self._usage = usage or FakeKeyUsage(now)
        self._idempotency = idempotency or FakeIdempotencyKeys(now)
        self._lock = threading.RLock()
        self._numbers = itertools.count()
        self._number: dict[str, int] = {}
        self._jobs: dict[str, Job] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self.weights: dict[str, float] = {}
        self._shares: dict[tuple[str, int, str], float] = {}
        self._charged_from: dict[str, int] = {}
        self._used_at: dict[tuple[str, int, str], datetime] = {}
        self._workers: dict[str, WorkerStatus] = {}

    def insert(self, job: NewJob, idempotency: IdempotencyKey | None = None, limits: KeyLimits = UNLIMITED) -> Job:
        with self._lock:
            if job.id in self._jobs:
                raise JobExists(job.id)
            key_id = job.origin.key_id if limits.any else None
            if key_id is not None:
                self._usage.check(key_id, limits, job.cost, self._active(key_id))
            if idempotency is not None:
                self._idempotency.claim(idempotency, job.id)
            if key_id is not None:
                self._usage.charge(key_id, limits, 1, job.cost)
            self._number[job.id] = next(self._numbers)
            self._enter(job)
            self._attempts[job.id] = []
            self._jobs[job.id] = Job(
                id=job.id,
                tenant=job.tenant,
                kind=job.kind,
                model=job.model,
                priority=job.priority,
                state=JobState.QUEUED,
                request=job.request,
                metadata=dict(job.metadata),
                deadline=job.deadline,
                max_attempts=job.max_attempts,
                attempt=0,
                losses=0,
                worker=None,
                tokens=(),
                usage=None,
                finish_reason=None,
                error=None,
                timeline=Timeline(queued_at=self._now()),
                origin=job.origin,
                cost=job.cost,
            )
            return self._jobs[job.id]

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or tenant not in (None, job.tenant):
                raise JobNotFound(job_id)
            return job

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        with self._lock:
            return {job_id: self._jobs[job_id] for job_id in job_ids if job_id in self._jobs}

    def page(self, tenant: str, filter: JobFilter) -> list[Job]:
        with self._lock:
            after = None if filter.after is None else self._number[self.get(filter.after, tenant).id]
            found = [
                job
                for job in self._in_order(reverse=not filter.ascending)
                if job.tenant == tenant
                and filter.state in (None, job.state)
                and filter.model in (None, job.model)
                and filter.kind in (None, job.kind)
                and filter.stored in (None, job.origin.stored)
                and (not filter.answered or job.state in (JobState.COMPLETED, JobState.INCOMPLETE))
                and (not filter.dead or (job.error is not None and job.error.is_dead_letter))
                and filter.metadata.items() <= job.metadata.items()
                and (after is None or (self._number[job.id] > after) == filter.ascending)
                and job.id != filter.after
            ]
            return found[: filter.limit]

    def attempts(self, job_id: str) -> list[Attempt]:
        with self._lock:
            return list(self._attempts.get(job_id, []))

    def delete(self, job_id: str, tenant: str) -> None:
        with self._lock:
            job = self.get(job_id, tenant)
            if not job.state.terminal:
                raise JobNotFinished(job_id, job.state)
            self._remove(job_id)
            self._idempotency.forget(job_id)

    def queue_place(self, job: Job) -> QueuePlace | None:
        with self._lock:
            waiting = [other for other in self._queue(job.model) if other.priority <= job.priority]
            if job.id not in {other.id for other in waiting}:
                return None
            lane = [other for other in waiting if other.priority == job.priority]
            higher = [other for other in waiting if other.priority < job.priority]
            own = [o for o in lane if o.tenant == job.tenant and self._number[o.id] < self._number[job.id]]
            others = sorted({other.tenant for other in lane} - {job.tenant})
            return place_of(
                self._waiting(job, job.tenant, own),
                [self._waiting(job, name, [o for o in lane if o.tenant == name]) for name in others],
                QueuePlace(len(higher), sum(other.cost for other in higher), self._until_free(job.model)),
            )

    def _until_free(self, model: str) -> int:
        running = [j.cost for j in self._jobs.values() if j.model == model and j.state == JobState.IN_PROGRESS]
        return round(sum(running) / len(running)) if running else 0

    def _waiting(self, job: Job, tenant: str, theirs: list[Job]) -> Waiting:
        virtual = self._shares[job.model, job.priority, tenant]
        return Waiting(tenant, len(theirs), sum(o.cost for o in theirs), virtual, self.weights.get(tenant, 1.0))

    def lines(self) -> Lines:
        with self._lock:
            lanes: dict[tuple[str, int, str], list[Job]] = {}
            for job in self._jobs.values():
                if job.state == JobState.QUEUED:
                    lanes.setdefault(_lane(job), []).append(job)
            running = {job.model for job in self._jobs.values() if job.state == JobState.IN_PROGRESS}
            return Lines(
                [self._line(some) for some in lanes.values()],
                {model: self._until_free(model) for model in running},
                {tenant: weight for tenant, weight in self.weights.items() if weight != 1},
            )

    def _line(self, some: list[Job]) -> Line:
        job, alone = some[0], [job.cost for job in some if job.origin.batch is None]
        return Line(job.model, job.priority, self._waiting(job, job.tenant, some), len(alone), sum(alone))

    def depths(self) -> list[Depth]:
        with self._lock:
            lanes: dict[tuple[str, int, JobState], list[Job]] = {}
            for job in self._jobs.values():
                if not job.state.terminal:
                    lanes.setdefault((job.model, job.priority, job.state), []).append(job)
            return [
                Depth(
                    *(model, some[0].priority, state, len(some)),
                    sum(job.origin.batch is not None for job in some),
                    sum(job.cost for job in some),
                    min(job.timeline.queued_at for job in some),
                )
                for (model, _, state), some in sorted(lanes.items())
            ]

    def claim(self, model: str, worker: str, lowest: Priority = Priority.BATCH) -> Job | None:
        with self._lock:
            waiting = [job for job in self._open(model) if job.priority <= lowest]
            if not waiting:
                return None
            job = min(waiting, key=lambda job: (job.priority, self._shares[_lane(job)], job.tenant))
            if job.attempt + 1 == self._charged_from.get(job.id, 1):
                self._charge(job, job.cost)
            claimed = replace(
                job,
                state=JobState.IN_PROGRESS,
                attempt=job.attempt + 1,
                worker=worker,
                timeline=replace(job.timeline, claimed_at=job.timeline.claimed_at or self._now()),
            )
            self._attempts[job.id].append(Attempt(claimed.attempt, worker, self._now()))
            return self._put(claimed)

    def save_partials(self, partials: Sequence[Partial]) -> frozenset[str]:
        with self._lock:
            stale = set()
            for partial in partials:
                try:
                    job = self._current(partial.job_id, partial.attempt)
                except StaleAttempt:
                    stale.add(partial.job_id)
                    continue
                self._put(self._with_tokens(self._stamped(job, partial.stamps), partial.tokens))
            return frozenset(stale)

    def _stamped(self, job: Job, stamps: Stamps) -> Job:
        def at(ago_s: float | None) -> datetime | None:
            return None if ago_s is None else self._now() - timedelta(seconds=ago_s)

        known = job.timeline
        prepared_at = known.prepared_at or at(stamps.prepared_s)
        first_token_at = known.first_token_at or at(stamps.first_token_s)
        return replace(job, timeline=replace(known, prepared_at=prepared_at, first_token_at=first_token_at))

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> Job:
        with self._lock:
            if self._closed_as(job_id, attempt, AttemptEnd.FINISHED):
                return self._jobs[job_id]
            job = self._stamped(self._current(job_id, attempt), outcome.stamps)
            job = self._with_tokens(job, outcome.tokens)
            job = replace(
                job, usage=outcome.usage, finish_reason=outcome.finish_reason, finish_reasons=outcome.finish_reasons
            )
            return self._end(job, outcome.state, AttemptEnd.FINISHED, error=outcome.error)

    def give_back(self, job_id: str, attempt: int, end: AttemptEnd, detail: str, tokens: Sequence[Token]) -> Job:
        with self._lock:
            if self._closed_as(job_id, attempt, end):
                return self._jobs[job_id]
            return self._return_or_bury(self._with_tokens(self._current(job_id, attempt), tokens), end, detail)

    def not_ours(self, worker: str, running: Mapping[str, int]) -> frozenset[str]:
        with self._lock:
            return frozenset(
                job_id
                for job_id, attempt in running.items()
                if not self._is_current(job_id, attempt) or self._jobs[job_id].worker != worker
            )

    def give_back_unknown(self, worker: str, running: Collection[str], older_than_s: float) -> list[Job]:
        with self._lock:
            before = self._now() - timedelta(seconds=older_than_s)
            return [
                self._return_or_bury(job, AttemptEnd.DRAINED, "the worker never heard that its claim succeeded")
                for job in self._held_by(worker)
                if job.id not in running and self._attempts[job.id][-1].started_at < before
            ]

    def heartbeat(self, worker: WorkerRecord) -> None:
        with self._lock:
            known = self._workers.get(worker.id)
            started_at = known.started_at if known else self._now()
            self._workers[worker.id] = WorkerStatus(worker, started_at, self._now(), alive=True)

    def retire(self, worker_id: str) -> None:
        with self._lock:
            self._workers.pop(worker_id, None)
            for job in self._held_by(worker_id):
                self._return_or_bury(job, AttemptEnd.LEASE_EXPIRED, f"worker {worker_id} left without giving it back")

    def workers(self, lease_s: float) -> list[WorkerStatus]:
        with self._lock:
            known = sorted(self._workers.values(), key=lambda status: (status.started_at, status.record.id))
            return [replace(status, alive=self._alive(status.record.id, lease_s)) for status in known]

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            job = self.get(job_id, tenant)
            if job.state.terminal:
                return job
            return replace(self._end(job, JobState.CANCELLED, AttemptEnd.CANCELLED), worker=job.worker)

    def label(self, job_id: str, tenant: str, metadata: Mapping[str, str]) -> Job:
        with self._lock:
            return self._put(replace(self.get(job_id, tenant), metadata=dict(metadata)))

    def extend_tokens(self, job_id: str, tokens: Sequence[Token]) -> Job:
        with self._lock:
            job = self.get(job_id)
            stopped = job.state in (JobState.CANCELLED, JobState.FAILED) and job.purged_at is None
            if stopped and len(tokens) > len(job.tokens):
                job = self._put(replace(job, tokens=tuple(tokens)))
            return job

    def requeue(self, job_id: str, tenant: str | None = None) -> Job:
        with self._lock:
            job = self.get(job_id, tenant)
            if job.state != JobState.FAILED or job.error is None or not job.error.is_dead_letter:
                raise IllegalTransition(job.state, JobState.QUEUED)
            if job.purged_at is not None:
                raise JobPurged(job_id)
            surplus = max(0, self._attempts[job_id][-1].tokens - job.cost)
            self._charge(job, -surplus)
            self._usage.correct(job.origin.key_id, -surplus if self._is_charged(job) else job.cost)
            self._enter(job)
            timeline = replace(job.timeline, done_at=None)
            return self._put(replace(job, state=JobState.QUEUED, losses=0, error=None, timeline=timeline))

    def heed_clock(self, lease_s: float) -> None:
        with self._lock:
            for name, status in self._workers.items():
                if status.heartbeat_at > self._now() + timedelta(seconds=lease_s):
                    self._workers[name] = replace(status, heartbeat_at=self._now())

    def take_back_lost(self, lease_s: float, limit: int = 500) -> list[Job]:
        with self._lock:
            self.heed_clock(lease_s)
            lost = [
                job
                for job in sorted(self._jobs.values(), key=lambda job: job.id)
                if job.state == JobState.IN_PROGRESS and not self._alive(job.worker, lease_s)
            ]
            return [
                self._return_or_bury(
                    job, AttemptEnd.LEASE_EXPIRED, f"worker {job.worker} was silent for longer than {lease_s:g} s"
                )
                for job in lost[:limit]
            ]

    def claimable(self, limit: int) -> dict[str, list[str]]:
        with self._lock:
            models = {job.model for job in self._jobs.values()}
            found = {model: [job.id for job in self._open(model)][:limit] for model in models}
            return {model: ids for model, ids in found.items() if ids}

    def fail_past_deadline(self, limit: int = 500) -> list[Job]:
        with self._lock:
            now = self._now()
            late = [
                (job.deadline, job)
                for job in self._jobs.values()
                if job.deadline is not None and job.deadline < now and not job.state.terminal
            ]
            failed = []
            for deadline, job in sorted(late, key=lambda pair: pair[0])[:limit]:
                message = f"the job was not done at its deadline, {deadline.isoformat()}"
                error = JobError("deadline_exceeded", message)
                failed.append(
                    replace(self._end(job, JobState.FAILED, AttemptEnd.DEADLINE, error=error), worker=job.worker)
                )
            return failed

    def expire(self, retention_s: float, limit: int = 500) -> list[str]:
        with self._lock:
            before = self._now() - timedelta(seconds=retention_s)
            old = [
                job.id
                for job in self._jobs.values()
                if job.timeline.done_at is not None and job.timeline.done_at < before
            ]
            for job_id in old[:limit]:
                self._remove(job_id)
            return old[:limit]

    def purge(self, job_id: str) -> bool:
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.timeline.done_at is None or job.origin.stored or job.purged_at is not None:
                return False
            self._attempts[job_id] = [replace(attempt, detail="") for attempt in self._attempts[job_id]]
            bare = replace(job, request=ChatRequest((), Sampling(seed=0)), metadata={}, tokens=())
            error = None if job.error is None else replace(job.error, message=PURGED)
            origin = replace(job.origin, door={}, webhook=None)
            self._put(replace(bare, error=error, origin=origin, purged_at=self._now()))
            return True

    def purge_unstored(self, age_s: float, limit: int = 500) -> list[str]:
        with self._lock:
            before = self._now() - timedelta(seconds=age_s)
            ended = [(job.timeline.done_at, job.id) for job in self._jobs.values() if job.timeline.done_at is not None]
            old = (job_id for done_at, job_id in sorted(ended) if done_at < before)
            return list(itertools.islice((job_id for job_id in old if self.purge(job_id)), limit))

    def forget_idle_shares(self, idle_s: float, limit: int = 500) -> int:
        with self._lock:
            before = self._now() - timedelta(seconds=idle_s)
            waiting = {_lane(job) for job in self._jobs.values() if job.state == JobState.QUEUED}
            idle = sorted(lane for lane, used_at in self._used_at.items() if used_at < before and lane not in waiting)
            for lane in idle[:limit]:
                del self._shares[lane], self._used_at[lane]
            return len(idle[:limit])

    def orphan_blobs(self, digests: Sequence[str]) -> frozenset[str]:
        with self._lock:
            return frozenset(digests).difference(*(job.request.blobs() for job in self._jobs.values()))

    def _put(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job

    def _remove(self, job_id: str) -> None:
        for table in (self._jobs, self._number, self._attempts):
            table.pop(job_id, None)

    def _in_order(self, reverse: bool = False) -> list[Job]:
        return sorted(self._jobs.values(), key=lambda job: self._number[job.id], reverse=reverse)

    def _queue(self, model: str) -> list[Job]:
        waiting = [job for job in self._jobs.values() if job.model == model and job.state == JobState.QUEUED]
        return sorted(waiting, key=lambda job: (job.priority, self._number[job.id]))

    def _held_by(self, worker: str) -> list[Job]:
        return [job for job in self._jobs.values() if job.worker == worker and job.state == JobState.IN_PROGRESS]

    def _alive(self, worker: str | None, lease_s: float) -> bool:
        status = self._workers.get(worker or "")
        return status is not None and status.heartbeat_at >= self._now() - timedelta(seconds=lease_s)

    def _open(self, model: str) -> list[Job]:
        return [job for job in self._queue(model) if job.deadline is None or job.deadline > self._now()]

    def _active(self, key_id: str) -> list[JobState]:
        of_key = [job for job in self._jobs.values() if job.origin.key_id == key_id and job.origin.batch is None]
        return [job.state for job in of_key if not job.state.terminal]

    def _enter(self, new: NewJob | Job) -> None:
        """Before the job is queued."""
        lane = [job for job in self._queue(new.model) if job.priority == new.priority]
        if any(job.tenant == new.tenant for job in lane):
            return
        everyone = [virtual for key, virtual in self._shares.items() if key[:2] == (new.model, new.priority)]
        floor = min((self._shares[_lane(job)] for job in lane), default=max(everyone, default=0.0))
        self._shares[_lane(new)] = max(self._shares.get(_lane(new), floor), floor)
        self._used_at[_lane(new)] = self._now()

    def _charge(self, job: Job, tokens: int) -> None:
        if _lane(job) in self._shares:
            self._shares[_lane(job)] += tokens / self.weights.get(job.tenant, 1.0)

    def _correct(self, job: Job, end: AttemptEnd) -> None:
        stopped = job.state == JobState.IN_PROGRESS and end in (AttemptEnd.CANCELLED, AttemptEnd.DEADLINE)
        if job.usage is not None:
            correction = job.usage.total_tokens - job.cost
        elif stopped or job.tokens:
            correction = max(0, len(job.tokens) - job.cost)
        else:
            correction = -job.cost
        if not self._is_charged(job):
            self._usage.correct(job.origin.key_id, -job.cost)
            return
        self._usage.correct(job.origin.key_id, correction)
        self._charge(job, correction)
        if correction == -job.cost:
            self._charged_from[job.id] = job.attempt + 1

    def _is_charged(self, job: Job) -> bool:
        return job.attempt >= self._charged_from.get(job.id, 1)

    def _is_current(self, job_id: str, attempt: int) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and job.attempt == attempt and job.state == JobState.IN_PROGRESS

    def _current(self, job_id: str, attempt: int) -> Job:
        if not self._is_current(job_id, attempt):
            raise StaleAttempt(job_id, attempt)
        return self._jobs[job_id]

    def _closed_as(self, job_id: str, attempt: int, end: AttemptEnd) -> bool:
        job = self._jobs.get(job_id)
        return job is not None and 0 < job.attempt == attempt and self._attempts[job_id][-1].end == end

    def _with_tokens(self, job: Job, tokens: Sequence[Token]) -> Job:
        longer = job.tokens + tuple(tokens[len(job.tokens) :])
        first_token_at = job.timeline.first_token_at or (self._now() if longer else None)
        return replace(job, tokens=longer, timeline=replace(job.timeline, first_token_at=first_token_at))

    def _close_attempt(self, job: Job, end: AttemptEnd, detail: str) -> None:
        if job.state == JobState.IN_PROGRESS:
            closed = replace(
                self._attempts[job.id][-1], ended_at=self._now(), end=end, detail=detail, tokens=len(job.tokens)
            )
            self._attempts[job.id][-1] = closed

    def _end(self, job: Job, state: JobState, end: AttemptEnd, detail: str = "", error: JobError | None = None) -> Job:
        transitions.check(job.state, state)
        self._close_attempt(job, end, detail)
        self._correct(job, end)
        timeline = replace(job.timeline, done_at=self._now())
        return self._put(replace(job, state=state, worker=None, error=error, timeline=timeline))

    def _return_or_bury(self, job: Job, end: AttemptEnd, detail: str) -> Job:
        losses = job.losses + (1 if end.is_loss else 0)
        if end.is_loss and losses >= job.max_attempts:
            message = f"{losses} attempts were lost, the last one as {end}" + (f": {detail}" if detail else "")
            error = JobError("too_many_attempts", message)
            return self._end(replace(job, losses=losses), JobState.FAILED, end, detail, error)
        transitions.check(job.state, JobState.QUEUED)
        self._close_attempt(job, end, detail)
        self._enter(job)
        return self._put(replace(job, state=JobState.QUEUED, worker=None, losses=losses))
