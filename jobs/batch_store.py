"""Batches on PostgreSQL: what clients see of them, and what their process does with their jobs.

A change applies only while the batch is in the state that it comes from, so two processes that both believe to lead do
nothing twice. The jobs of a batch are its rows in `jobs`; `jobs.store` runs and ends them as any other's.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, text, update

from jobs.batch_rows import batch_of
from jobs.batches import WINDOW_S, Batch, BatchStatus, BatchUsage, Counts, LineFault, NewBatch, Place, Refusal
from jobs.database import Database
from jobs.errors import BatchNotActive, BatchNotFound
from jobs.file_store import insert_file
from jobs.files import NewFile
from jobs.idempotency import IdempotencyKey, claim
from jobs.job import Job, NewJob
from jobs.store.intake import insert_jobs
from jobs.store.rows import encode, job_of, select_jobs
from jobs.tables import batch_refusals, batches, jobs
from jobs.webhooks import add_batch_event

_error = msgspec.json.Decoder(dict[str, str | None])

# What failed before the batch was stopped failed by itself.
_SHOWN = """
    SELECT batch.*, batch.expires_at <= now() AS overdue, counted.* FROM batches AS batch
    LEFT JOIN LATERAL (
        SELECT
            (SELECT count(*) FROM batch_refusals WHERE batch_id = batch.id) AS refused,
            (SELECT count(*) FROM jobs WHERE batch_id = batch.id AND state IN ('queued', 'in_progress')) AS active,
            (SELECT count(*) FROM jobs WHERE batch_id = batch.id AND state IN ('failed', 'cancelled')) AS lost,
            (SELECT count(*) FROM jobs WHERE batch_id = batch.id AND state IN ('failed', 'cancelled')
             AND (state = 'failed' OR done_at < coalesce(batch.cancelling_at, batch.expires_at))) AS lost_alone
    ) AS counted ON batch.ended_at IS NULL"""
_GET = text(f"{_SHOWN} WHERE batch.id = :id AND (CAST(:tenant AS text) IS NULL OR batch.tenant = :tenant)")
_PAGE = text(f"""{_SHOWN}
    WHERE batch.tenant = :tenant AND (CAST(:before AS bigint) IS NULL OR batch.number < :before)
    ORDER BY batch.number DESC LIMIT :limit""")
_ACTIVE = text("SELECT id FROM batches WHERE ended_at IS NULL ORDER BY number")
_LEFT = "SELECT id FROM jobs WHERE batch_id = :id AND state IN ('queued', 'in_progress')"

# Nothing but its row knows of a job that was never claimed and has no webhook: many end in one statement.
_CANCEL_UNTOUCHED = text("""
    UPDATE jobs SET state = 'cancelled', done_at = now() WHERE id IN (
        SELECT id FROM jobs
        WHERE batch_id = :id AND state = 'queued' AND attempt = 0 AND webhook IS NULL
        LIMIT :limit FOR UPDATE SKIP LOCKED)""")


class PostgresBatchStore:
    """All raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- the client's side

    def insert(self, new: NewBatch, idempotency: IdempotencyKey | None = None) -> Batch:
        """Records a batch to be validated, and the key that it is made under. Raises IdempotencyKeyTaken."""

        def work(on: Connection) -> Batch:
            if idempotency is not None:
                claim(on, idempotency, new.id)
            on.execute(_insert(new))
            return _get(on, new.id, new.tenant)

        return self._database.transaction(work)

    def get(self, batch_id: str, tenant: str | None = None) -> Batch:
        """Raises BatchNotFound, also when the batch is another tenant's."""
        return self._database.statement(lambda on: _get(on, batch_id, tenant))

    def page(self, tenant: str, after: str | None, limit: int) -> list[Batch]:
        """Newest first, behind the batch `after`. Raises BatchNotFound for an unknown one."""
        return self._database.statement(lambda on: _page(on, tenant, after, limit))

    def count_active(self, tenant: str) -> int:
        """How many of the tenant's batches have not ended."""
        living = select(func.count()).where(batches.c.tenant == tenant, batches.c.ended_at.is_(None))
        return self._database.statement(lambda on: on.execute(living).scalar_one())

    def cancel(self, batch_id: str, tenant: str) -> Batch:
        """Cancelling a cancelled batch changes nothing. Raises BatchNotFound, BatchNotActive."""

        def work(on: Connection) -> Batch:
            living = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING)
            asked = update(batches).where(
                batches.c.id == batch_id, batches.c.tenant == tenant, batches.c.status.in_(living)
            )
            on.execute(asked.values(status=BatchStatus.CANCELLING, cancelling_at=func.now()))
            return _get(on, batch_id, tenant)

        batch = self._database.transaction(work)
        if batch.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
            raise BatchNotActive(batch_id, batch.status.value)
        return batch

    # -- the process's side

    def active(self) -> list[str]:
        """Ids of batches that have not ended, oldest first."""
        return self._database.statement(lambda on: list(on.execute(_ACTIVE).scalars()))

    def begin(self, batch_id: str, model: str, total: int) -> None:
        """The file is right: its lines may become jobs."""
        found = {"status": BatchStatus.IN_PROGRESS, "model": model, "total": total, "in_progress_at": func.now()}
        self._database.statement(lambda on: _move(on, batch_id, BatchStatus.VALIDATING, found))

    def fail(self, batch: Batch, faults: Sequence[LineFault]) -> None:
        """The file is wrong, or lost: no line has run, or none can go on."""
        self._database.transaction(lambda on: _end(on, batch, BatchStatus.FAILED, {"errors": encode(faults)}))

    def take(self, batch: Batch, lines: Sequence[NewJob], refusals: Sequence[Refusal], place: Place) -> None:
        """Records what the next lines became, and how far that is, as a whole. Nothing when somebody else has taken
        them, or the batch is no longer in progress."""

        def work(on: Connection) -> None:
            moved = (
                update(batches)
                .where(batches.c.id == batch.id, batches.c.status == BatchStatus.IN_PROGRESS)
                .where(batches.c.next_line == batch.next_line)
                .values(next_line=place.line, next_byte=place.byte, taken=place.taken)
            )
            if not on.execute(moved).rowcount:
                return
            insert_jobs(on, lines)
            if refusals:
                rows = [
                    {"batch_id": batch.id, "line": r.line, "status_code": r.status_code, "error": encode(r.error)}
                    for r in refusals
                ]
                on.execute(insert(batch_refusals), rows)

        self._database.transaction(work)

    def left(self, batch_id: str, limit: int) -> list[str]:
        """Ids of the batch's jobs that have not ended."""
        some = text(f"{_LEFT} LIMIT :limit")
        return self._database.statement(lambda on: list(on.execute(some, {"id": batch_id, "limit": limit}).scalars()))

    def cancel_untouched(self, batch_id: str, limit: int) -> int:
        """Cancels jobs that no worker ever had. Returns how many."""
        values = {"id": batch_id, "limit": limit}
        return self._database.statement(lambda on: on.execute(_CANCEL_UNTOUCHED, values).rowcount)

    def finalize(self, batch_id: str) -> None:
        """Every line has its result."""
        found = {"status": BatchStatus.FINALIZING, "finalizing_at": func.now()}
        self._database.statement(lambda on: _move(on, batch_id, BatchStatus.IN_PROGRESS, found))

    def jobs_of(self, batch_id: str, first: int, last: int) -> dict[int, Job]:
        """The jobs of the lines from `first` to `last`, by line."""
        some = select_jobs().where(jobs.c.batch_id == batch_id, jobs.c.batch_line.between(first, last))
        return self._database.statement(lambda on: {row.batch_line: job_of(row) for row in on.execute(some)})

    def refusals_of(self, batch_id: str, first: int, last: int) -> dict[int, Refusal]:
        some = select(batch_refusals).where(
            batch_refusals.c.batch_id == batch_id, batch_refusals.c.line.between(first, last)
        )
        return self._database.statement(
            lambda on: {
                row.line: Refusal(row.line, row.status_code, _error.decode(row.error)) for row in on.execute(some)
            }
        )

    def end(
        self,
        batch: Batch,
        status: BatchStatus,
        counts: Counts,
        usage: BatchUsage | None,
        output: NewFile | None,
        errors: NewFile | None,
    ) -> None:
        """Ends the batch with its files, as a whole. Nothing when the batch has left the state it was seen in."""
        values = {
            "total": counts.total,
            "completed": counts.completed,
            "failed": counts.failed,
            "usage": None if usage is None else encode(usage),
            "output_file_id": output and output.id,
            "error_file_id": errors and errors.id,
        }

        def work(on: Connection) -> None:
            if _end(on, batch, status, values):
                for file in (output, errors):
                    if file is not None:
                        insert_file(on, file)

        self._database.transaction(work)

    def expire(self, retention_s: float, limit: int = 500) -> list[str]:
        """Forgets batches that ended longer ago. Their files have lives of their own."""
        old = (
            select(batches.c.id)
            .where(batches.c.ended_at < func.now() - timedelta(seconds=retention_s))
            .order_by(batches.c.ended_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        gone = delete(batches).where(batches.c.id == old.c.id).returning(batches.c.id)
        return self._database.statement(lambda on: list(on.execute(gone).scalars()))


def _insert(new: NewBatch) -> Any:
    return insert(batches).values(
        id=new.id,
        tenant=new.tenant,
        key_id=new.key_id,
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        digest=new.digest,
        status=BatchStatus.VALIDATING,
        metadata=encode(dict(new.metadata)),
        output_lifetime_s=new.output_lifetime_s,
        expires_at=func.now() + timedelta(seconds=WINDOW_S),
    )


def _get(connection: Connection, batch_id: str, tenant: str | None) -> Batch:
    row = connection.execute(_GET, {"id": batch_id, "tenant": tenant}).one_or_none()
    if row is None:
        raise BatchNotFound(batch_id)
    return batch_of(row)


def _page(connection: Connection, tenant: str, after: str | None, limit: int) -> list[Batch]:
    before = None
    if after is not None:
        number = select(batches.c.number).where(batches.c.id == after, batches.c.tenant == tenant)
        before = connection.execute(number).scalar_one_or_none()
        if before is None:
            raise BatchNotFound(after)
    rows = connection.execute(_PAGE, {"tenant": tenant, "before": before, "limit": limit})
    return [batch_of(row) for row in rows]


def _move(connection: Connection, batch_id: str, source: BatchStatus, values: dict[str, Any]) -> bool:
    moved = update(batches).where(batches.c.id == batch_id, batches.c.status == source).values(**values)
    return connection.execute(moved).rowcount == 1


def _end(connection: Connection, batch: Batch, status: BatchStatus, values: dict[str, Any]) -> bool:
    ended = {"status": status, "ended_at": func.now(), **values}
    if not _move(connection, batch.id, batch.status, ended):
        return False
    connection.execute(delete(batch_refusals).where(batch_refusals.c.batch_id == batch.id))
    add_batch_event(connection, batch.tenant, batch.id, status.value)
    return True
