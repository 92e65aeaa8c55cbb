"""How much waits and runs, and where in the queue a job stands."""

from sqlalchemy import Connection, func, select, tuple_

from jobs.job import JobState, Priority
from jobs.ports import Depth
from jobs.tables import jobs


def queue_position(connection: Connection, job_id: str) -> int:
    this = jobs.alias("this")
    before = (
        select(func.count())
        .select_from(jobs)
        .join(this, this.c.id == job_id)
        .where(this.c.state == JobState.QUEUED, jobs.c.state == JobState.QUEUED, jobs.c.model == this.c.model)
        .where(tuple_(jobs.c.priority, jobs.c.number) < tuple_(this.c.priority, this.c.number))
    )
    return connection.execute(before).scalar_one()


def depths(connection: Connection) -> list[Depth]:
    lane = (jobs.c.model, jobs.c.priority, jobs.c.state)
    rows = connection.execute(
        select(*lane, func.count().label("count"), func.min(jobs.c.queued_at).label("oldest"))
        .where(jobs.c.state.in_([JobState.QUEUED, JobState.IN_PROGRESS]))
        .group_by(*lane)
        .order_by(*lane)
    )
    return [
        Depth(row.model, Priority(row.priority), JobState(row.state), count=row[3], oldest_queued_at=row.oldest)
        for row in rows
    ]
