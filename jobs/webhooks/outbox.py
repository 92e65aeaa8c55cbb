"""Writes deliveries in the transaction of the end that they tell: never one without the other.

Registered endpoints hear of `response.*` when a background response ends that is no line of a batch, of `job.*` when
such a response or a job ends, of `batch.*` when a batch does. A job's own webhook hears of its job, whatever it is.
"""

from sqlalchemy import Connection, text

from jobs.ids import new_id

EVENT_PREFIX = "evt_"

_COLUMNS = "id, tenant, endpoint_id, url, secret, target, event_id, event_type, subject, state"
_ID = "'whd_' || replace(CAST(gen_random_uuid() AS text), '-', '')"
# An endpoint that is switched off gets its deliveries when it is switched on again.
_STATE = "CASE WHEN endpoint.disabled_at IS NULL THEN 'pending' ELSE 'held' END"

TELL_JOB = f"""
    happened (event_id, event_type) AS (
        VALUES (CAST(:response_event AS text), 'response.' || CAST(:state AS text)),
               (CAST(:job_event AS text), 'job.' || CAST(:state AS text))
    ), told_endpoints AS (
        INSERT INTO webhook_deliveries ({_COLUMNS})
        SELECT {_ID}, ended.tenant, endpoint.id, NULL, NULL, endpoint.id, event_id, event_type, ended.id, {_STATE}
        FROM ended CROSS JOIN happened
        JOIN webhook_endpoints AS endpoint
          ON endpoint.tenant = ended.tenant AND happened.event_type = ANY (endpoint.event_types)
        WHERE ended.background AND ended.batch_id IS NULL
          AND (ended.kind = 'response' OR (ended.kind = 'job' AND event_type LIKE 'job.%'))
    ), told_client AS (
        INSERT INTO webhook_deliveries ({_COLUMNS})
        SELECT {_ID}, ended.tenant, NULL, ended.webhook ->> 'url', ended.webhook ->> 'secret',
               substring(ended.webhook ->> 'url' FROM '^[^/]*//[^/?#]*'), event_id, event_type, ended.id, 'pending'
        FROM ended CROSS JOIN happened
        WHERE ended.webhook ->> 'url' IS NOT NULL
          AND CASE WHEN ended.webhook -> 'event_types' IS NULL THEN event_type LIKE 'response.%'
                   ELSE CAST(ended.webhook -> 'event_types' AS jsonb) ? event_type END
    )"""
"""Parts of a WITH that has the row of an ended job as `ended`, with the parameters of `new_events` and `state`."""

_TELL_BATCH = text(f"""
    INSERT INTO webhook_deliveries ({_COLUMNS})
    SELECT {_ID}, endpoint.tenant, endpoint.id, NULL, NULL, endpoint.id, :event_id, :event_type, :batch_id, {_STATE}
    FROM webhook_endpoints AS endpoint
    WHERE endpoint.tenant = :tenant AND CAST(:event_type AS text) = ANY (endpoint.event_types)""")


def new_events() -> dict[str, str]:
    """Ids for what TELL_JOB may have to tell, as its parameters."""
    return {"response_event": new_id(EVENT_PREFIX), "job_event": new_id(EVENT_PREFIX)}


def add_batch_event(connection: Connection, tenant: str, batch_id: str, state: str) -> None:
    """Tells that a batch has ended as `completed`, `failed`, `expired` or `cancelled`. To be called in the transaction
    that ends it."""
    values = {"tenant": tenant, "batch_id": batch_id, "event_id": new_id(EVENT_PREFIX), "event_type": f"batch.{state}"}
    connection.execute(_TELL_BATCH, values)
