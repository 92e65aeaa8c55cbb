"""How much waits and runs, and where in the queue a job stands."""

from sqlalchemy import Connection, func, select, text

from jobs.job import JobState, Priority
from jobs.ports import Depth
from jobs.queue_place import QueuePlace, Waiting, place_of
from jobs.tables import jobs

# A row for the tenant itself, counting only what is ahead of the job; one for each other tenant of its lane; and one
# without a tenant for all higher lanes.
_PLACE = text("""
    WITH this AS (SELECT model, priority, tenant, number FROM jobs WHERE id = :id AND state = 'queued'),
    waiting AS (
        SELECT CASE WHEN jobs.priority = this.priority THEN jobs.tenant END AS tenant, cost
        FROM jobs, this
        WHERE jobs.state = 'queued' AND jobs.model = this.model AND jobs.priority <= this.priority
          AND NOT (jobs.priority = this.priority AND jobs.tenant = this.tenant AND jobs.number >= this.number)
        UNION ALL SELECT tenant, NULL FROM this
    ), counted AS (SELECT tenant, count(cost) AS jobs, coalesce(sum(cost), 0) AS tokens FROM waiting GROUP BY tenant)
    SELECT counted.*, counted.tenant IS NOT DISTINCT FROM this.tenant AS mine,
           coalesce(share.virtual, 0) AS virtual, coalesce(tenants.weight, 1) AS weight,
           (SELECT coalesce(avg(cost), 0)::int FROM jobs
            WHERE state = 'in_progress' AND model = this.model) AS until_free
    FROM this CROSS JOIN counted
    LEFT JOIN queue_shares AS share
      ON (share.model, share.priority, share.tenant) = (this.model, this.priority, counted.tenant)
    LEFT JOIN tenants ON tenants.name = counted.tenant""")


def queue_place(connection: Connection, job_id: str) -> QueuePlace | None:
    rows = connection.execute(_PLACE, {"id": job_id}).all()
    waiting = [Waiting(row.tenant, row.jobs, row.tokens, row.virtual, row.weight) for row in rows if row.tenant]
    mine = [row.tenant for row in rows if row.mine]
    if not mine:
        return None
    higher = QueuePlace(
        sum(row.jobs for row in rows if not row.tenant),
        sum(row.tokens for row in rows if not row.tenant),
        rows[0].until_free,
    )
    others = [each for each in waiting if each.tenant != mine[0]]
    (own,) = (each for each in waiting if each.tenant == mine[0])
    return place_of(own, others, higher)


def depths(connection: Connection) -> list[Depth]:
    lane = (jobs.c.model, jobs.c.priority, jobs.c.state)
    rows = connection.execute(
        select(*lane, func.count(), func.count(jobs.c.batch_id), func.sum(jobs.c.cost), func.min(jobs.c.queued_at))
        .where(jobs.c.state.in_([JobState.QUEUED, JobState.IN_PROGRESS]))
        .group_by(*lane)
        .order_by(*lane)
    )
    return [
        Depth(model, Priority(priority), JobState(state), count, in_batches, tokens, oldest)
        for model, priority, state, count, in_batches, tokens, oldest in rows
    ]
