"""How much waits and runs, and where in the queue a job stands."""

from sqlalchemy import Connection, select, text

from jobs.job import JobState, Priority
from jobs.ports import Depth
from jobs.queue_place import Line, Lines, QueuePlace, Waiting, place_of
from jobs.tables import tenants

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
    ), counted AS (SELECT tenant, count(cost) AS jobs, coalesce(sum(cost), 0) AS tokens FROM waiting GROUP BY tenant),
    running AS MATERIALIZED (
        SELECT coalesce(avg(cost), 0)::int AS until_free FROM jobs
        WHERE state = 'in_progress' AND model = (SELECT model FROM this)
    )
    SELECT counted.*, counted.tenant IS NOT DISTINCT FROM this.tenant AS mine,
           coalesce(share.virtual, 0) AS virtual, coalesce(tenants.weight, 1) AS weight,
           running.until_free
    FROM this CROSS JOIN counted CROSS JOIN running
    LEFT JOIN queue_shares AS share
      ON (share.model, share.priority, share.tenant) = (this.model, this.priority, counted.tenant)
    LEFT JOIN tenants ON tenants.name = counted.tenant""")


_LINES = text("""
    SELECT queued.*, coalesce(share.virtual, 0) AS virtual
    FROM (
        SELECT model, priority, tenant, count(*) AS jobs, sum(cost) AS tokens,
               count(*) FILTER (WHERE batch_id IS NULL) AS alone,
               coalesce(sum(cost) FILTER (WHERE batch_id IS NULL), 0) AS alone_tokens
        FROM jobs WHERE state = 'queued' GROUP BY model, priority, tenant
    ) AS queued
    LEFT JOIN queue_shares AS share USING (model, priority, tenant)""")
_UNTIL_FREE = text("SELECT model, avg(cost)::int AS tokens FROM jobs WHERE state = 'in_progress' GROUP BY model")


def _depth(state: JobState) -> str:
    return f"""
    SELECT model, priority, state, count(*) AS count, count(batch_id) AS in_batches, sum(cost) AS tokens,
           min(queued_at) AS oldest
    FROM jobs WHERE state = '{state}' GROUP BY model, priority, state"""


# One state at a time: each has an index of its own, and both together would be looked for among all jobs there are.
_DEPTHS = text(f"{_depth(JobState.QUEUED)} UNION ALL {_depth(JobState.IN_PROGRESS)} ORDER BY model, priority, state")


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


def lines(connection: Connection) -> Lines:
    rows = connection.execute(_LINES).all()
    weights = connection.execute(select(tenants.c.name, tenants.c.weight).where(tenants.c.weight != 1)).all()
    running = connection.execute(_UNTIL_FREE).all()
    by_tenant: dict[str, float] = {row.name: row.weight for row in weights}
    return Lines(
        [
            Line(
                row.model,
                Priority(row.priority),
                Waiting(row.tenant, row.jobs, row.tokens, row.virtual, by_tenant.get(row.tenant, 1.0)),
                row.alone,
                row.alone_tokens,
            )
            for row in rows
        ],
        {row.model: row.tokens for row in running},
        by_tenant,
    )


def depths(connection: Connection) -> list[Depth]:
    return [
        Depth(model, Priority(priority), JobState(state), count, in_batches, tokens, oldest)
        for model, priority, state, count, in_batches, tokens, oldest in connection.execute(_DEPTHS)
    ]
