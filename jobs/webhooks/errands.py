"""The deliverers' side of deliveries, on PostgreSQL: claim one that is due, write down what came of it.

A claim is a lease with a number. While it lasts nobody else gets the delivery; once it has run out, another does, and
the number keeps the first one's late word from being written. So no try is made twice, and none is lost with its
process. Times are the database's.
"""

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, text, update

from jobs.database import Database
from jobs.tables import webhook_attempts, webhook_deliveries, webhook_endpoints
from jobs.webhooks.delivery import Answer, DeliveryState, Errand
from jobs.webhooks.delivery_store import event_of
from jobs.webhooks.endpoint_store import PostgresWebhookEndpoints, hold
from jobs.webhooks.schedule import Schedule
from jobs.webhooks.settings import WebhookSettings

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long the outcome of a try is written again while the database does not answer; less than a lease."""
MOST_DETAIL = 500

endpoints = webhook_endpoints.c
deliveries = webhook_deliveries.c

# A lease that ends far later than one taken now is left from before the clock was set back. Not merely later: whoever
# claims at the same moment has another now.
_LEASED = "leased_until > now() AND leased_until <= now() + 2 * make_interval(secs => :lease_s)"
# Targets that are busy are left out, so that one silent receiver does not take all threads from the others.
_DUE = f"""
    busy AS (
        SELECT target FROM webhook_deliveries WHERE {_LEASED} GROUP BY target HAVING count(*) >= :per_target
    ), due AS (
        SELECT delivery.id, delivery.target, delivery.next_at
        FROM webhook_deliveries AS delivery LEFT JOIN webhook_endpoints AS endpoint ON endpoint.id = endpoint_id
        WHERE delivery.state = 'pending' AND delivery.next_at <= now()
          AND (delivery.leased_until IS NULL OR NOT ({_LEASED}))
          AND (delivery.endpoint_id IS NULL OR (endpoint.id IS NOT NULL AND endpoint.disabled_at IS NULL))
          AND NOT EXISTS (SELECT FROM busy WHERE busy.target = delivery.target)
        ORDER BY delivery.next_at"""

# How many tries are under way is asked twice: as it was when the statement began, to choose; and behind the target's
# lock, so that claims of the same moment count each other. The lock ends with the claim and is never held while a
# receiver is asked. Nor is the disk waited for: a claim that is lost with the server is a lost try. See docs/adr/0019.
_CLAIM = text(f"""
    WITH {_DUE} LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED
    ), taken AS (
        UPDATE webhook_deliveries AS delivery
        SET attempt = delivery.attempt + 1, leased_until = clock_timestamp() + make_interval(secs => :lease_s)
        FROM due
        WHERE delivery.id = due.id
          AND webhook_tries_under_way(due.target, make_interval(secs => :lease_s)) < :per_target
        RETURNING delivery.*
    ), opened AS (
        INSERT INTO webhook_attempts (delivery_id, number) SELECT id, attempt FROM taken
    )
    SELECT set_config('synchronous_commit', 'off', true), taken.*, endpoint.url AS endpoint_url,
           coalesce(taken.secret, endpoint.secret, own.secret) AS signing_secret,
           CASE WHEN endpoint.old_secret_until > now() THEN endpoint.old_secret
                WHEN taken.secret IS NULL AND own.old_secret_until > now() THEN own.old_secret END AS old_secret
    FROM due LEFT JOIN taken ON true
    LEFT JOIN webhook_endpoints AS endpoint ON endpoint.id = taken.endpoint_id
    LEFT JOIN webhook_secrets AS own ON own.tenant = taken.tenant AND taken.endpoint_id IS NULL""")

# Of each target no more than may be under way, as far as the oldest that are due tell.
_WAITING = text(f"""
    WITH {_DUE} LIMIT 4 * :limit
    ), placed AS (
        SELECT id, next_at, row_number() OVER (PARTITION BY target ORDER BY next_at) AS place FROM due
    )
    SELECT id FROM placed WHERE place <= :per_target ORDER BY next_at LIMIT :limit""")


class PostgresErrands:
    def __init__(self, database: Database, settings: WebhookSettings) -> None:
        self._database = database
        self._secrets = PostgresWebhookEndpoints(database, settings.max_endpoints)
        self._schedule = Schedule(settings.schedule_s, settings.jitter)
        self._per_target = settings.per_target
        self._lease_s = settings.lease_s
        self._give_up = timedelta(seconds=settings.give_up_s)

    def claim(self) -> Errand | None:
        """The delivery that is due longest, whose receiver is not busy; None when there is none. Two callers never
        get the same one, and never more than `per_target` are under way to one target. Raises StoreUnavailable; a
        claim whose answer is lost is a lost try."""
        values = {"per_target": self._per_target, "lease_s": self._lease_s}
        while (row := self._database.statement(lambda on: on.execute(_CLAIM, values).one_or_none())) is not None:
            if row.id is not None:
                return Errand(row.id, row.attempt, row.endpoint_url or row.url, self._keys(row), event_of(row))
            # Others have made its receiver busy meanwhile: the next look sees that.
        return None

    def waiting(self, limit: int) -> list[str]:
        """Up to `limit` ids of what could be claimed now. Raises StoreUnavailable."""
        values = {"per_target": self._per_target, "lease_s": self._lease_s, "limit": limit}
        return self._database.statement(lambda on: list(on.execute(_WAITING, values).scalars()))

    def settle(self, errand: Errand, answer: Answer) -> DeliveryState | None:
        """Writes down a try's outcome and what is next. None: the lease had run out, or the delivery is gone.
        Raises StoreUnavailable, after a while; then the lease runs out."""
        return self._database.transaction(lambda on: self._settle(on, errand, answer), PATIENCE_S)

    def _keys(self, row: Row[Any]) -> tuple[str, ...]:
        if row.signing_secret is None:
            return (self._secrets.secret(row.tenant).secret,)
        return (row.signing_secret,) if row.old_secret is None else (row.signing_secret, row.old_secret)

    def _settle(self, on: Connection, errand: Errand, answer: Answer) -> DeliveryState | None:
        endpoint = _locked_endpoint(on, errand.delivery_id)
        # Before its tries, as whoever deletes it does.
        row = on.execute(
            select(webhook_deliveries).where(deliveries.id == errand.delivery_id).with_for_update()
        ).one_or_none()
        if row is None:
            return None
        ended = update(webhook_attempts).where(
            webhook_attempts.c.delivery_id == errand.delivery_id, webhook_attempts.c.number == errand.attempt
        )
        detail = answer.detail[:MOST_DETAIL].replace("\x00", "")
        on.execute(ended.values(ended_at=func.now(), status_code=answer.status_code, detail=detail))
        if row.attempt != errand.attempt or row.state != DeliveryState.PENDING:
            return None
        disabled = endpoint is not None and _judge(on, endpoint, answer, self._give_up)
        state, pause_s = self._next(row, answer, disabled)
        on.execute(
            update(webhook_deliveries)
            .where(deliveries.id == row.id)
            .values(
                state=state,
                failures=row.failures + (0 if answer.accepted else 1),
                next_at=func.now() + timedelta(seconds=pause_s),
                leased_until=None,
            )
        )
        return state

    def _next(self, row: Row[Any], answer: Answer, disabled: bool) -> tuple[DeliveryState, float]:
        if answer.accepted:
            return DeliveryState.DELIVERED, 0.0
        pause_s = self._schedule.pause_s(row.failures + 1, answer)
        if pause_s is None or (answer.gone and row.endpoint_id is None):
            return DeliveryState.FAILED, 0.0
        return DeliveryState.HELD if disabled else DeliveryState.PENDING, pause_s


def _locked_endpoint(on: Connection, delivery_id: str) -> Row[Any] | None:
    """Before the delivery itself: see endpoint_store. The endpoint of a delivery never changes."""
    its = select(deliveries.endpoint_id).where(deliveries.id == delivery_id).scalar_subquery()
    found = select(endpoints.id, endpoints.failing_since, endpoints.disabled_at, func.now().label("now")).where(
        endpoints.id == its
    )
    return on.execute(found.with_for_update(key_share=True)).one_or_none()


def _judge(on: Connection, endpoint: Row[Any], answer: Answer, give_up: timedelta) -> bool:
    """Keeps an endpoint's record, switches it off when it is time to, and tells whether it is off."""
    change = update(webhook_endpoints).where(endpoints.id == endpoint.id)
    if answer.accepted:
        if endpoint.failing_since is not None:
            on.execute(change.values(failing_since=None))
        return endpoint.disabled_at is not None
    since = endpoint.failing_since or endpoint.now
    because = None
    if answer.gone:
        because = "it answered 410 Gone"
    elif endpoint.now - since >= give_up:
        because = f"nothing has arrived since {since:%Y-%m-%dT%H:%M:%SZ}: {answer.detail}"[:MOST_DETAIL]
    if endpoint.disabled_at is not None:
        return True
    if because is None:
        if endpoint.failing_since is None:
            on.execute(change.values(failing_since=func.now()))
        return False
    log.warning("disabled %s: %s", endpoint.id, because, extra={"action": "webhook.disabled", "endpoint": endpoint.id})
    on.execute(
        change.values(failing_since=since, disabled_at=func.now(), disabled_because=because, updated_at=func.now())
    )
    hold(on, endpoint.id)
    return True
