"""What one API key may ask for, and what it has used: in the running minute, waiting, and not ended yet.

What a minute allows may be used at once, and comes back evenly over a minute. All of it lies in the database, under one
lock per key: any number of API processes count together, by one clock, and what is refused counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sqlalchemy import Connection, text

from jobs.database import Database
from jobs.errors import LimitReached

MINUTE_S = 60.0
BATCH_SHARE = 0.5
"""Of a minute's tokens: lines of batches leave the rest to requests that somebody waits for."""


class Limit(StrEnum):
    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    QUEUED = "queued_jobs"
    IN_FLIGHT = "jobs_in_flight"


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """None: as much as the installation bears. Tokens are text and visual ones, of prompt and answer. `queued_jobs`
    wait; `jobs_in_flight` wait or run. Lines of batches count for tokens alone."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    queued_jobs: int | None = None
    jobs_in_flight: int | None = None

    @property
    def any(self) -> bool:
        return self != UNLIMITED

    @property
    def per_minute(self) -> bool:
        return self.requests_per_minute is not None or self.tokens_per_minute is not None

    @property
    def count_jobs(self) -> bool:
        return self.queued_jobs is not None or self.jobs_in_flight is not None


UNLIMITED = KeyLimits()


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key has used of a minute and has not got back yet."""

    requests: float = 0.0
    tokens: float = 0.0

    def after(self, seconds: float, limits: KeyLimits) -> "Spent":
        """What is left of it so much later. What has no limit is not counted."""
        return Spent(
            _after(self.requests, seconds, limits.requests_per_minute),
            _after(self.tokens, seconds, limits.tokens_per_minute),
        )

    def plus(self, requests: float, tokens: float) -> "Spent":
        return Spent(self.requests + requests, self.tokens + tokens)


def _after(spent: float, seconds: float, limit: int | None) -> float:
    return 0.0 if limit is None else max(0.0, spent - max(0.0, seconds) * limit / MINUTE_S)


def wait_s(spent: float, limit: int, needed: float) -> float:
    """Until `needed` more fits into the limit, 0 when it does."""
    excess = spent + needed - limit
    # What comes back evenly is hardly ever a whole number.
    return excess * MINUTE_S / limit if excess > 1e-6 else 0.0


def check_minute(limits: KeyLimits, spent: Spent, cost: int) -> None:
    """Whether one more request of `cost` tokens fits. Raises LimitReached."""
    tokens, requests = limits.tokens_per_minute, limits.requests_per_minute
    if tokens is not None and cost > tokens:
        raise LimitReached(Limit.TOKENS, tokens, needed=cost)
    if requests is not None and (wait := wait_s(spent.requests, requests, 1)) > 0:
        raise LimitReached(Limit.REQUESTS, requests, needed=1, wait_s=wait)
    if tokens is not None and (wait := wait_s(spent.tokens, tokens, cost)) > 0:
        raise LimitReached(Limit.TOKENS, tokens, needed=cost, wait_s=wait)


def check_jobs(limits: KeyLimits, queued: int, in_flight: int) -> None:
    """Whether one more job may wait. Raises LimitReached."""
    for limit, allowed, there in (
        (Limit.QUEUED, limits.queued_jobs, queued),
        (Limit.IN_FLIGHT, limits.jobs_in_flight, in_flight),
    ):
        if allowed is not None and there >= allowed:
            raise LimitReached(limit, allowed, needed=1, until_job_moves=True)


def lines_that_fit(limits: KeyLimits, spent: Spent, costs: Sequence[int]) -> int:
    """How many of a batch's next lines, in their order, may become jobs now. A line that would never fit goes when the
    key has nothing spent."""
    if limits.tokens_per_minute is None:
        return len(costs)
    room, fitting = limits.tokens_per_minute * BATCH_SHARE - spent.tokens, 0
    for cost in costs:
        room -= cost
        if room < 0:
            break
        fitting += 1
    return fitting or int(spent.tokens <= 0 and bool(costs))


class KeyUsage(Protocol):
    """All raise StoreUnavailable. `JobStore.insert` charges what a job costs, and a job's end corrects it."""

    def spent(self, key_id: str, limits: KeyLimits) -> Spent: ...

    def pace(self, key_id: str, limits: KeyLimits, costs: Sequence[int]) -> int:
        """How many of a batch's next lines may become jobs now; their tokens are charged."""
        ...

    def forget(self) -> None:
        """Removes corrections of keys that have not been used for long."""
        ...


CORRECTING = """
    corrected AS (
        INSERT INTO key_corrections (key_id, tokens) SELECT ended.key_id, CAST(:key_correction AS int) FROM ended
        WHERE CAST(:key_correction AS int) <> 0 AND EXISTS (SELECT FROM key_usage WHERE key_id = ended.key_id)
    )"""
"""The part of a statement that ends jobs: what they came to beyond their cost. Rows of their own, which the key's next
charge adds up, because the end of a job must not wait for the key's lock."""

_CHARGE_AGAIN = text("""
    INSERT INTO key_corrections (key_id, tokens) SELECT key_id, CAST(:tokens AS int) FROM jobs
    WHERE id = :id AND CAST(:tokens AS int) <> 0 AND EXISTS (SELECT FROM key_usage WHERE key_id = jobs.key_id)""")

_EXPIRE = text("DELETE FROM key_corrections WHERE made_at < now() - make_interval(secs => :kept_s)")

# The row is made before it is locked, so that a key's first requests wait for each other too.
_MAKE = text("INSERT INTO key_usage (key_id) VALUES (:key_id) ON CONFLICT DO NOTHING")
# By a stamp from before the clock was set back nothing would come back until the clock gets there: then all of it does.
_AGE = """
    CAST(CASE WHEN charged_at > clock_timestamp() + interval '1 minute' THEN 60
              ELSE extract(epoch FROM clock_timestamp() - charged_at) END AS float8) AS age_s"""
_LOCK = text(f"""
    SELECT requests, tokens, {_AGE}
    FROM key_usage WHERE key_id = :key_id FOR UPDATE""")
_SPENT = text(f"""
    SELECT requests, {_AGE},
           tokens + (SELECT coalesce(sum(made.tokens), 0) FROM key_corrections AS made WHERE made.key_id = :key_id)
           AS tokens
    FROM key_usage WHERE key_id = :key_id""")
_CORRECT = text("""
    WITH made AS (DELETE FROM key_corrections WHERE key_id = :key_id RETURNING tokens)
    SELECT CAST(coalesce(sum(tokens), 0) AS float8) FROM made""")
_WRITE = text("""
    UPDATE key_usage SET requests = :requests, tokens = :tokens, charged_at = clock_timestamp()
    WHERE key_id = :key_id""")
_COUNT = text("""
    SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) AS in_flight FROM jobs
    WHERE key_id = :key_id AND batch_id IS NULL AND state IN ('queued', 'in_progress')""")


def charge(connection: Connection, key_id: str, limits: KeyLimits, cost: int) -> None:
    """Charges one job to the key, in the transaction that records it: whoever comes at the same time waits here until
    it is committed. Raises LimitReached; then the transaction must end without having recorded anything."""
    spent = _locked(connection, key_id, limits)
    check_minute(limits, spent, cost)
    if limits.count_jobs:
        # A statement of its own, behind the lock: it sees what the others have committed.
        there = connection.execute(_COUNT, {"key_id": key_id}).one()
        check_jobs(limits, there.queued, there.in_flight)
    _write(connection, key_id, spent.plus(1, cost))


def charge_again(connection: Connection, job_id: str, tokens: int) -> None:
    """For a job that is queued anew: takes back what its end has corrected. Refuses nothing: who queues it has
    decided."""
    connection.execute(_CHARGE_AGAIN, {"id": job_id, "tokens": tokens})


def _locked(connection: Connection, key_id: str, limits: KeyLimits) -> Spent:
    while (row := connection.execute(_LOCK, {"key_id": key_id}).one_or_none()) is None:
        connection.execute(_MAKE, {"key_id": key_id})
    corrections = connection.execute(_CORRECT, {"key_id": key_id}).scalar_one()
    return Spent(row.requests, row.tokens + corrections).after(row.age_s, limits)


def _write(connection: Connection, key_id: str, spent: Spent) -> None:
    connection.execute(_WRITE, {"key_id": key_id, "requests": spent.requests, "tokens": spent.tokens})


class PostgresKeyUsage:
    def __init__(self, database: Database) -> None:
        self._database = database

    def spent(self, key_id: str, limits: KeyLimits) -> Spent:
        row = self._database.statement(lambda on: on.execute(_SPENT, {"key_id": key_id}).one_or_none())
        return Spent() if row is None else Spent(row.requests, row.tokens).after(row.age_s, limits)

    def pace(self, key_id: str, limits: KeyLimits, costs: Sequence[int]) -> int:
        def work(on: Connection) -> int:
            spent = _locked(on, key_id, limits)
            fitting = lines_that_fit(limits, spent, costs)
            _write(on, key_id, spent.plus(0, sum(costs[:fitting])))
            return fitting

        if limits.tokens_per_minute is None:
            return len(costs)
        return self._database.transaction(work)

    def forget(self) -> None:
        self._database.statement(lambda on: on.execute(_EXPIRE, {"kept_s": 10 * MINUTE_S}))
