"""What the API and the worker need from the outside: the store of jobs, the event log, the queue, blobs, control.

All calls are synchronous; the API makes them from a bounded thread pool (docs/adr/0002). All instants are the
database's. Each port has an adapter and a fake that pass the same contract tests.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from jobs.events import Event
from jobs.idempotency import IdempotencyKey
from jobs.job import Attempt, AttemptEnd, Job, JobKind, JobState, NewJob, Outcome, Priority, Stamps, Token
from jobs.limits import UNLIMITED, KeyLimits
from jobs.queue_place import Lines, QueuePlace
from jobs.tiling import Tiling


@dataclass(frozen=True, slots=True)
class Partial:
    """What an attempt has produced so far. The stamps enter the timeline once."""

    job_id: str
    attempt: int
    tokens: tuple[Token, ...]
    stamps: Stamps = field(default_factory=Stamps)


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as the others see it. `stats` is the engine's last statistics, JSON values only; `tiling` how its model
    sees pictures."""

    id: str
    model: str
    host: str
    pid: int
    slots: int
    device: str = "cpu"
    stats: Mapping[str, Any] = field(default_factory=dict)
    tiling: Tiling | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    record: WorkerRecord
    started_at: datetime
    heartbeat_at: datetime
    alive: bool


@dataclass(frozen=True, slots=True)
class JobFilter:
    """`after` is a job id: the page starts behind it, in the listing's order (newest first unless `ascending`).
    None: whatever kind, stored or not. `answered`: only jobs that are completed or incomplete; `dead`: only dead
    letters, those that failed with one of DEAD_LETTERS."""

    state: JobState | None = None
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    after: str | None = None
    limit: int = 20
    ascending: bool = False
    kind: JobKind | None = None
    stored: bool | None = None
    answered: bool = False
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Depth:
    """How many jobs of a model wait or run in one lane, how many of these are lines of batches, how many tokens all are
    estimated to cost together, and since when the oldest of them waits."""

    model: str
    priority: Priority
    state: JobState
    count: int
    in_batches: int
    tokens: int
    oldest_queued_at: datetime


class JobStore(Protocol):
    """Where jobs live. Every method is one transaction. A row that this version cannot read comes as a job that is
    `unreadable`, so that it is in nobody's way. Raises StoreUnavailable when the database does not answer
    (after retries with back-off for the worker's writes). Writes of an attempt apply only while it is current:
    otherwise they raise StaleAttempt and change nothing."""

    def insert(self, job: NewJob, idempotency: IdempotencyKey | None = None, limits: KeyLimits = UNLIMITED) -> Job:
        """Records a new job as queued, with the blobs it refers to, and the key that it is made under. Of several
        with the same key at once one is recorded. `limits` are those of the API key `origin.key_id`, to which it is
        charged. Raises JobExists when the id is not new, IdempotencyKeyTaken, LimitReached; then nothing has
        happened."""
        ...

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        """Raises JobNotFound, also when `tenant` is given and the job is another's."""
        ...

    def get_many(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those that exist, by id."""
        ...

    def page(self, tenant: str, filter: JobFilter) -> list[Job]:
        """One page. An unknown `after` raises JobNotFound."""
        ...

    def attempts(self, job_id: str) -> list[Attempt]: ...

    def delete(self, job_id: str, tenant: str) -> None:
        """Removes a terminal job with all that tells of it: its references to blobs, deliveries of webhooks, and that
        an idempotency key made it. Raises JobNotFound, JobNotFinished, JobOfBatch."""
        ...

    def queue_place(self, job: Job) -> QueuePlace | None:
        """An estimate of what goes before this job, by lanes and fair shares as they are now. None: it does not
        wait."""
        ...

    def lines(self) -> Lines:
        """All that waits, by model, lane and tenant. As dear as the queue is long: not for every request."""
        ...

    def depths(self) -> list[Depth]: ...

    # -- the worker's side

    def claim(self, model: str, worker: str, lowest: Priority = Priority.BATCH) -> Job | None:
        """Takes the next queued job of the model: of the first lane that has one, down to `lowest`; there of the
        tenant that has had the fewest tokens for its weight; of this the oldest. Its first claim charges the tenant
        with the job's estimated cost, its end with the difference to what it came to. A dead letter whose end gave all
        of it back is charged anew. Attempt += 1, state in_progress. Two workers never get the same job. Jobs past their
        deadline are left to the sweeper. None: nothing waits."""
        ...

    def save_partials(self, partials: Sequence[Partial]) -> frozenset[str]:
        """Stores what running attempts have so far, stamping prepared_at and first_token_at once. Never shortens
        stored tokens. Returns the ids whose attempt is no longer current (for which nothing was written)."""
        ...

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> Job:
        """The one terminal write of an attempt. Raises StaleAttempt. Repeating the same call after a lost answer
        returns the finished job."""
        ...

    def give_back(self, job_id: str, attempt: int, end: AttemptEnd, detail: str, tokens: Sequence[Token]) -> Job:
        """Closes the attempt; the job is queued again with its tokens, or `failed` with
        `too_many_attempts` when a loss makes `losses` reach `max_attempts`. Raises StaleAttempt."""
        ...

    def not_ours(self, worker: str, running: Mapping[str, int]) -> frozenset[str]:
        """Of the jobs (id → attempt) that this worker runs, those that it should stop: cancelled, taken back,
        ended or deleted."""
        ...

    def give_back_unknown(self, worker: str, running: Collection[str], older_than_s: float) -> list[Job]:
        """Gives back the jobs that by their rows this worker runs, but that it does not know: the answer to its claim
        was lost. Jobs claimed within the last `older_than_s` are left alone: their answer may be on its way."""
        ...

    def heartbeat(self, worker: WorkerRecord) -> None:
        """Upserts the worker's row: the lease of all its jobs."""
        ...

    def retire(self, worker_id: str) -> None:
        """The worker leaves in good order: its row goes. Jobs it still holds are taken back as `lease_expired`."""
        ...

    def workers(self, lease_s: float) -> list[WorkerStatus]: ...

    # -- the client's side

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        """Compare-and-set to cancelled from queued or in_progress. Cancelling a terminal job returns it as it is.
        The returned job's `worker` names who ran it, so that it can be told. Raises JobNotFound."""
        ...

    def label(self, job_id: str, tenant: str, metadata: Mapping[str, str]) -> Job:
        """Puts this metadata in place of the job's own, whatever its state. Raises JobNotFound."""
        ...

    def extend_tokens(self, job_id: str, tokens: Sequence[Token]) -> Job:
        """Gives a cancelled or failed job the tokens that its log has and its row has not (published, not stored
        yet when it ended). Never shortens."""
        ...

    def requeue(self, job_id: str, tenant: str | None = None) -> Job:
        """Gives a dead letter (`failed` with one of DEAD_LETTERS) back with its losses forgotten. Its event log has
        ended: the caller drops it (`EventLog.drop`), or no attempt can open it. Raises JobNotFound, JobPurged,
        IllegalTransition."""
        ...

    # -- the sweeper's side

    def heed_clock(self, lease_s: float) -> None:
        """A worker that was heard in the future was heard before the clock was set back: it gets one lease from now,
        which the living ones renew. `take_back_lost` does this too."""
        ...

    def take_back_lost(self, lease_s: float, limit: int = 500) -> list[Job]:
        """Gives back every job whose worker has been silent for longer than the lease, or is unknown. Returns the
        jobs, queued again or failed as `too_many_attempts`."""
        ...

    def claimable(self, limit: int) -> dict[str, list[str]]:
        """Up to `limit` queued jobs of each model that has any, by model: those for which bells should wait."""
        ...

    def fail_past_deadline(self, limit: int = 500) -> list[Job]:
        """Fails queued and running jobs whose deadline has passed, as `deadline_exceeded`; `worker` of each returned
        job names who ran it."""
        ...

    def expire(self, retention_s: float, limit: int = 500) -> list[str]:
        """Deletes jobs that ended longer ago than the retention, except those whose batch has not ended. Returns
        their ids."""
        ...

    def purge(self, job_id: str) -> bool:
        """Takes the content from an ended job that is not stored: request, blobs, tokens, metadata, door, the words of
        its errors. State, usage, instants and attempts stay. False: it is stored, runs, is purged or is unknown."""
        ...

    def purge_unstored(self, age_s: float, limit: int = 500) -> list[str]:
        """The same for all that ended longer ago, except those whose batch has not ended. Returns their ids."""
        ...

    def forget_idle_shares(self, idle_s: float, limit: int = 500) -> int:
        """Forgets what tenants have had of lanes in which nothing of theirs has waited for so long: there they begin as
        new ones do. Returns how many that were."""
        ...

    def orphan_blobs(self, digests: Sequence[str]) -> frozenset[str]:
        """Of these digests, those that no job, no file and no living batch refers to."""
        ...


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one job's log, the first of which has the sequence `first`."""

    job_id: str
    attempt: int
    first: int
    events: Sequence[Event]


class EventLog(Protocol):
    """The live event logs, in Redis. Carries, never decides: what is lost here is rebuilt from rows. All raise
    StreamUnavailable when Redis does not answer, and of it LogRefused for what is wrong with one log alone. A log that
    cannot be read is as good as lost."""

    def open(self, job_id: str, attempt: int, log: Sequence[Event]) -> list[Event]:
        """Makes `attempt` the one that may append, and sees that the log holds at least `log` (the row's). Returns
        the whole log, which is longer than the row's when an earlier attempt had published more than was stored.
        Raises StaleAttempt when a later attempt is open or the log has ended."""
        ...

    def append(self, appends: Sequence[Append]) -> list[Exception | None]:
        """One round trip. Per append None, StaleAttempt, LogGap (then send again from `next_sequence`) or LogRefused,
        whatever the others are answered. Events that the log holds already are skipped, so repeating an append whose
        answer was lost is harmless."""
        ...

    def end(self, job_id: str, log: Sequence[Event]) -> list[Event]:
        """Closes the log of a terminal job for every attempt: adds of `log` (the row's, with its `Ended`) what is
        missing, and starts its TTL. Tokens that were published beyond the row stay: then `Ended` follows them.
        Idempotent. Returns the whole log."""
        ...

    def read(self, job_id: str) -> list[Event]:
        """The whole log, empty when Redis has none."""
        ...

    def unended(self) -> Iterator[list[str]]:
        """The ids of jobs whose logs nobody has ended, in pieces of some hundreds; of logs that come or go meanwhile
        perhaps."""
        ...

    def drop(self, job_id: str) -> None:
        """Forgets the log, so that an attempt can begin it again."""
        ...

    def erase(self, job_ids: Sequence[str]) -> None:
        """Forgets these logs for good: who comes late with what was in them does not bring them back."""
        ...


class Queue(Protocol):
    """The door-bell of the workers."""

    def ring(self, model: str, job_id: str) -> bool:
        """Rings once for a job. False when the broker did not take it: the sweeper rings later. Never raises for an
        ill broker, and never blocks longer than a few seconds."""
        ...

    def waiting(self, model: str) -> int | None:
        """How many bells of the model nobody has answered yet; None when the broker does not tell. Never raises and
        never blocks longer than a few seconds either."""
        ...


class Control(Protocol):
    """Words to one worker while it runs. Best effort: `JobStore.not_ours` is the truth that backs it."""

    def stop_job(self, worker: str, job_id: str) -> None: ...


class Blobs(Protocol):
    """Media bytes by content. Raises BlobsUnavailable."""

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their sha256 in hex. Storing them again refreshes their age."""
        ...

    def put_file(self, file: BinaryIO) -> str:
        """The same for what a seekable file holds, in pieces: it may be larger than memory."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises BlobNotFound."""
        ...

    def open(self, digest: str) -> BinaryIO:
        """The bytes to read in pieces, from anywhere; the caller closes it. Raises BlobNotFound; reading raises
        BlobsUnavailable."""
        ...

    def touch(self, digest: str) -> None:
        """Refreshes the age of bytes that are about to be referred to. Raises BlobNotFound."""
        ...

    def delete(self, digest: str, age_s: float = 0.0) -> None:
        """Removes the bytes, unless they were put or touched within the last `age_s` seconds."""
        ...

    def older_than(self, age_s: float, limit: int = 1000) -> list[str]:
        """Digests that were last put longer ago: candidates of the sweeper's collection."""
        ...
