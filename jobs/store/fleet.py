"""Workers: their heartbeats, and which jobs are really theirs."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from jobs.job import AttemptEnd, Job, JobState
from jobs.ports import WorkerRecord, WorkerStatus
from jobs.store.ending import lockable, return_or_bury
from jobs.store.rows import Reader, encode
from jobs.store.shares import by_share
from jobs.tables import job_attempts, jobs, workers
from jobs.tiling import Tiling

_stats = msgspec.json.Decoder(dict[str, Any])
_tiling = msgspec.json.Decoder(Tiling)


def heartbeat(connection: Connection, worker: WorkerRecord) -> None:
    row: dict[str, Any] = {
        "model": worker.model,
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "device": worker.device,
        "stats": encode(dict(worker.stats)),
        "tiling": encode(worker.tiling) if worker.tiling else None,
    }
    written = insert(workers).values(id=worker.id, **row)
    connection.execute(written.on_conflict_do_update(index_elements=["id"], set_={**row, "heartbeat_at": func.now()}))


def retire(connection: Connection, worker_id: str) -> None:
    connection.execute(delete(workers).where(workers.c.id == worker_id))
    # A row that is locked is being ended or taken from the worker anyway.
    held = lockable().where(jobs.c.worker == worker_id, jobs.c.state == JobState.IN_PROGRESS)
    for row in by_share(connection.execute(held.with_for_update(skip_locked=True)).all()):
        return_or_bury(connection, row, AttemptEnd.LEASE_EXPIRED, f"worker {worker_id} left without giving it back")


def list_workers(connection: Connection, lease_s: float) -> list[WorkerStatus]:
    alive = (workers.c.heartbeat_at >= func.now() - timedelta(seconds=lease_s)).label("alive")
    rows = connection.execute(select(workers, alive).order_by(workers.c.started_at, workers.c.id))
    return [
        WorkerStatus(_record_of(row), started_at=row.started_at, heartbeat_at=row.heartbeat_at, alive=row.alive)
        for row in rows
    ]


def _record_of(row: Row[Any]) -> WorkerRecord:
    read = Reader(row).read
    return WorkerRecord(
        *(row.id, row.model, row.host, row.pid, row.slots, row.device),
        stats=read("stats", _stats.decode, {}),
        tiling=read("tiling", _tiling.decode, None),
    )


def not_ours(connection: Connection, worker: str, running: Mapping[str, int]) -> frozenset[str]:
    current = select(jobs.c.id, jobs.c.attempt).where(
        jobs.c.id.in_(list(running)), jobs.c.worker == worker, jobs.c.state == JobState.IN_PROGRESS
    )
    ours = {row.id for row in connection.execute(current) if running[row.id] == row.attempt}
    return frozenset(running) - ours


def give_back_unknown(connection: Connection, worker: str, running: Collection[str], older_than_s: float) -> list[Job]:
    claimed_at = (
        select(job_attempts.c.started_at)
        .where(job_attempts.c.job_id == jobs.c.id, job_attempts.c.number == jobs.c.attempt)
        .scalar_subquery()
    )
    unknown = connection.execute(
        lockable()
        .where(jobs.c.worker == worker, jobs.c.state == JobState.IN_PROGRESS, jobs.c.id.not_in(list(running)))
        .where(claimed_at < func.now() - timedelta(seconds=older_than_s))
        .with_for_update(skip_locked=True, of=jobs)
    ).all()
    why = "the worker never heard that its claim succeeded"
    return [return_or_bury(connection, row, AttemptEnd.DRAINED, why) for row in by_share(unknown)]
