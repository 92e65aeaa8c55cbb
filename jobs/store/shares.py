"""Fair shares in SQL: how a tenant enters a lane, and what its counter is charged (docs/adr/0009).

Lock order: rows of `jobs` before rows of `queue_shares`, and of these several only in the order of `by_share`.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from jobs.job import AttemptEnd, JobState, Usage

OLDEST_FIRST = "ORDER BY model, priority, tenant, number"
"""Behind `in_line`. Both fit ix_jobs_turn and no other index: with equalities and an order by number the planner may
take an index of all that a tenant ever had, and walk its ended jobs to find one that waits."""


def in_line(model: str, priority: str, tenant: str) -> str:
    """The condition for the jobs that wait in one lane for one tenant, all given as SQL."""
    place = f"({model}, {priority}, {tenant})"
    return f"state = 'queued' AND (model, priority, tenant) >= {place} AND (model, priority, tenant) <= {place}"


def _first(of: str) -> str:
    """A query of the first job that waits where the row `of` says."""
    return f"""
    SELECT number FROM jobs WHERE {in_line(f"{of}.model", f"{of}.priority", f"{of}.tenant")} {OLDEST_FIRST} LIMIT 1"""


def entering(source: str) -> str:
    """The part `entered` of a statement that puts the jobs of `source` into the queue. A tenant that had nothing
    waiting there does not bring what others had meanwhile as a credit: its counter is lifted to the least of those who
    wait, or, when nobody does, to the greatest. Who waits already is not touched, nor locked."""
    return f"""
    entered AS (
        INSERT INTO queue_shares AS share (model, priority, tenant, virtual)
        SELECT new.model, new.priority, new.tenant, coalesce(
            (SELECT other.virtual
             FROM (SELECT * FROM queue_shares
                   WHERE model = new.model AND priority = new.priority AND tenant <> new.tenant
                   ORDER BY virtual) AS other
             CROSS JOIN LATERAL ({_first("other")}) AS waits
             LIMIT 1),
            (SELECT max(other.virtual) FROM queue_shares AS other
             WHERE other.model = new.model AND other.priority = new.priority),
            0)
        FROM {source} AS new
        WHERE ({_first("new")}) IS NULL
        ON CONFLICT (model, priority, tenant) DO UPDATE
        SET virtual = greatest(share.virtual, excluded.virtual), used_at = now()
    )"""


def charging(source: str, tokens: str, condition: str = "true") -> str:
    """The part `charged` of a statement: `tokens` of each job of `source`, by its tenant's weight."""
    return f"""
    charged AS (
        UPDATE queue_shares AS share
        SET virtual = virtual + {tokens} / coalesce((SELECT weight FROM tenants WHERE name = share.tenant), 1)
        FROM {source} AS job
        WHERE (share.model, share.priority, share.tenant) = (job.model, job.priority, job.tenant) AND {condition}
    )"""


_ENTER = text(f"WITH again AS (SELECT * FROM jobs WHERE id = :id), {entering('again')} SELECT")


def enter(connection: Connection, job_id: str) -> None:
    """For a job that is not in the queue, before it is put there again."""
    connection.execute(_ENTER, {"id": job_id})


_REOPEN = text(f"""
    WITH again AS (
        SELECT job.*, greatest(last.tokens - job.cost, 0) AS surplus
        FROM jobs AS job JOIN job_attempts AS last ON (last.job_id, last.number) = (job.id, job.attempt)
        WHERE job.id = :id
    ), {charging("again", "-job.surplus", "job.surplus > 0")}
    SELECT surplus FROM again""")


def reopen(connection: Connection, row: Row[Any]) -> int:
    """Takes the end of a dead letter back, before it enters the queue again: its next end settles the whole. What it
    had drawn beyond its estimate leaves its tenant's share; an estimate that its end gave back waits for the claim.
    Returns what its key, which is charged while a job waits too, is to be charged for that."""
    surplus = int(connection.execute(_REOPEN, {"id": row.id}).scalar_one())
    return -surplus if is_charged(row) else int(row.cost)


# A job that comes where others of its tenant wait does not touch their share: it must not be about to go. So the share
# of those is renewed long before.
_FORGET = text(f"""
    WITH old AS (
        SELECT model, priority, tenant, ({_first("share")}) IS NOT NULL AS waits FROM queue_shares AS share
        WHERE used_at < now() - make_interval(secs => :idle_s / 2)
          AND (used_at < now() - make_interval(secs => :idle_s) OR ({_first("share")}) IS NOT NULL)
        ORDER BY model, priority, tenant LIMIT :limit FOR UPDATE SKIP LOCKED
    ), renewed AS (
        UPDATE queue_shares AS share SET used_at = now() FROM old
        WHERE (share.model, share.priority, share.tenant) = (old.model, old.priority, old.tenant) AND waits
    )
    DELETE FROM queue_shares AS share USING old
    WHERE (share.model, share.priority, share.tenant) = (old.model, old.priority, old.tenant) AND NOT waits""")


def forget_idle(connection: Connection, idle_s: float, limit: int) -> int:
    """How many counters went: of lanes in which nothing of the tenant's has waited for so long. At the next job it
    begins with the others, as a new tenant does."""
    return connection.execute(_FORGET, {"idle_s": idle_s, "limit": limit}).rowcount


def by_share(rows: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Jobs in the order in which one transaction may touch their shares."""
    return sorted(rows, key=lambda row: (row.model, row.priority, row.tenant, row.id))


def is_charged(row: Row[Any]) -> bool:
    """Whether the tenant's share has the job's estimate: since its first claim, and not after an end that gave all of
    it back. A dead letter that is queued again after such an end is charged anew when it is claimed."""
    return bool(row.attempt >= row.charged_from)


def correction(row: Row[Any], end: AttemptEnd, usage: Usage | None, count: int) -> int:
    """What the end of a job adds to the estimate that a claim was charged. `count`: tokens it has drawn.

    Without a usage, the estimate stands for a job that was stopped while it ran or had drawn something (what its
    prompt came to is not known); one that never got so far had nothing."""
    if not is_charged(row):
        return 0
    if usage is not None:
        return int(usage.total_tokens - row.cost)
    stopped = row.state == JobState.IN_PROGRESS and end in (AttemptEnd.CANCELLED, AttemptEnd.DEADLINE)
    return max(0, count - row.cost) if stopped or count else -int(row.cost)
