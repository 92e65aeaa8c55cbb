"""Jobs that lose their content, and what goes with a job, a file or a batch that is deleted.

A purged row keeps what accounting needs: who, which model, when, how it ended, how many tokens. The bytes of
pictures and the log in Redis go elsewhere.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from jobs.request import NOTHING
from jobs.store.rows import encode

PURGED = "what the job was asked and what it answered are not kept"
"""Stands in the place of an error's message, which may quote the request."""

_FORGET = """
    , tokens AS (DELETE FROM job_tokens USING due WHERE job_id = due.id),
    blobs AS (DELETE FROM job_blobs USING due WHERE job_id = due.id),
    details AS (UPDATE job_attempts SET detail = '' FROM due WHERE job_id = due.id)
    UPDATE jobs
    SET request = CAST(:nothing AS json), metadata = CAST('{}' AS jsonb), door = NULL, webhook = NULL,
        error = CASE WHEN error IS NULL THEN NULL ELSE json_build_object(
            'code', error ->> 'code', 'message', CAST(:message AS text), 'param', error ->> 'param') END,
        purged_at = now()
    FROM due WHERE jobs.id = due.id
    RETURNING jobs.id"""
_DUE = "done_at IS NOT NULL AND NOT stored AND purged_at IS NULL"

_PURGE = text(f"WITH due AS (SELECT id FROM jobs WHERE id = :id AND {_DUE} FOR UPDATE) {_FORGET}")
# The lines of a batch are kept until its files are written.
_PURGE_OLD = text(f"""
    WITH due AS (
        SELECT id FROM jobs
        WHERE {_DUE} AND done_at < now() - make_interval(secs => :age_s)
          AND NOT EXISTS (SELECT FROM batches WHERE batches.id = jobs.batch_id AND batches.ended_at IS NULL)
        ORDER BY done_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ) {_FORGET}""")

_FORGET_DELIVERIES = text("DELETE FROM webhook_deliveries WHERE subject = ANY (CAST(:ids AS text[]))")
# The client's word for its request stays until its time is over, so that a repetition is not done as new.
_FORGET_RESULTS = text("UPDATE idempotency_keys SET made = '' WHERE made = ANY (CAST(:ids AS text[]))")


def purge(connection: Connection, job_id: str) -> bool:
    return connection.execute(_PURGE, {"id": job_id, **_VALUES}).one_or_none() is not None


def purge_unstored(connection: Connection, age_s: float, limit: int) -> list[str]:
    return list(connection.execute(_PURGE_OLD, {"age_s": age_s, "limit": limit, **_VALUES}).scalars())


def forget_traces(connection: Connection, ids: Sequence[str]) -> None:
    """What other tables hold of something that is being deleted: what webhooks tell of it, and that a key made it."""
    connection.execute(_FORGET_DELIVERIES, {"ids": list(ids)})
    forget_results(connection, ids)


def forget_results(connection: Connection, ids: Sequence[str]) -> None:
    """Of something that no webhook tells of."""
    connection.execute(_FORGET_RESULTS, {"ids": list(ids)})


_VALUES = {"nothing": encode(NOTHING), "message": PURGED}
