"""Deliveries as their owners see them, on PostgreSQL: listed, read, sent once more, forgotten.

Every method is one transaction; all raise StoreUnavailable. Nothing here knows a secret.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, or_, select, update

from jobs.database import Database
from jobs.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled, WebhookEndpointNotFound
from jobs.tables import webhook_attempts, webhook_deliveries, webhook_endpoints
from jobs.webhooks.delivery import Delivery, DeliveryAttempt, DeliveryFilter, DeliveryState
from jobs.webhooks.event import Event

endpoints = webhook_endpoints.c
deliveries = webhook_deliveries.c
attempts = webhook_attempts.c


class PostgresDeliveries:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, delivery_id: str, tenant: str) -> Delivery:
        """Raises WebhookDeliveryNotFound, also for another tenant's."""
        return self._database.statement(lambda on: _with_attempts(on, [_row(on, delivery_id, tenant)])[0])

    def page(self, tenant: str, wanted: DeliveryFilter) -> list[Delivery]:
        """Newest first. Raises WebhookDeliveryNotFound for an unknown `after`."""

        def work(on: Connection) -> list[Delivery]:
            rows = select(webhook_deliveries).where(deliveries.tenant == tenant)
            for column, value in (
                (deliveries.endpoint_id, wanted.endpoint_id),
                (deliveries.subject, wanted.subject),
                (deliveries.state, wanted.state),
                (deliveries.event_type, wanted.event_type),
            ):
                if value is not None:
                    rows = rows.where(column == value)
            if wanted.after is not None:
                rows = rows.where(deliveries.number < _row(on, wanted.after, tenant).number)
            found = on.execute(rows.order_by(deliveries.number.desc()).limit(wanted.limit)).all()
            return _with_attempts(on, found)

        return self._database.statement(work)

    def replay(self, delivery_id: str, tenant: str) -> Delivery:
        """Makes it due now, with all its tries before it, whatever became of it. Its event keeps its id. Raises
        WebhookDeliveryNotFound, WebhookEndpointDisabled."""

        def work(on: Connection) -> Delivery:
            row = _row(on, delivery_id, tenant)
            if row.endpoint_id is not None:
                _check_enabled(on, row.endpoint_id, tenant)
            again = update(webhook_deliveries).where(deliveries.id == delivery_id)
            done = on.execute(again.values(**_AGAIN).returning(webhook_deliveries)).one_or_none()
            if done is None:
                raise WebhookDeliveryNotFound(delivery_id)
            return _with_attempts(on, [done])[0]

        return self._database.transaction(work)

    def replay_since(self, endpoint_id: str, tenant: str, since: datetime) -> int:
        """The same for all of an endpoint whose events happened at `since` or later and that do not wait anyway.
        Returns how many. Raises WebhookEndpointNotFound, WebhookEndpointDisabled."""

        def work(on: Connection) -> int:
            _check_enabled(on, endpoint_id, tenant)
            ended = deliveries.state.in_([DeliveryState.DELIVERED, DeliveryState.FAILED])
            again = update(webhook_deliveries).where(
                deliveries.endpoint_id == endpoint_id, deliveries.created_at >= since, ended
            )
            return on.execute(again.values(**_AGAIN)).rowcount

        return self._database.transaction(work)

    def expire(self, retention_s: float, limit: int = 5000) -> int:
        """Forgets old deliveries that wait no more, or whose endpoint is gone. Returns how many."""
        orphan = and_(
            deliveries.endpoint_id.is_not(None),
            ~exists().where(endpoints.id == deliveries.endpoint_id),
        )
        old = (
            select(deliveries.id)
            .where(deliveries.created_at < func.now() - timedelta(seconds=retention_s))
            .where(or_(deliveries.state != DeliveryState.PENDING, orphan))
            .order_by(deliveries.created_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        return self._database.statement(
            lambda on: on.execute(delete(webhook_deliveries).where(deliveries.id == old.c.id)).rowcount
        )


_AGAIN: dict[str, Any] = {"state": DeliveryState.PENDING, "failures": 0, "next_at": func.now()}


def _row(connection: Connection, delivery_id: str, tenant: str) -> Row[Any]:
    mine = select(webhook_deliveries).where(deliveries.id == delivery_id, deliveries.tenant == tenant)
    row = connection.execute(mine).one_or_none()
    if row is None:
        raise WebhookDeliveryNotFound(delivery_id)
    return row


def _check_enabled(connection: Connection, endpoint_id: str, tenant: str) -> None:
    """Locks the endpoint as well, so that it stays as it is."""
    mine = select(endpoints.disabled_because).where(endpoints.id == endpoint_id, endpoints.tenant == tenant)
    row = connection.execute(mine.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise WebhookEndpointNotFound(endpoint_id)
    if row.disabled_because is not None:
        raise WebhookEndpointDisabled(endpoint_id, row.disabled_because)


def _with_attempts(connection: Connection, rows: Sequence[Row[Any]]) -> list[Delivery]:
    tries: dict[str, list[DeliveryAttempt]] = defaultdict(list)
    mine = select(webhook_attempts).where(attempts.delivery_id.in_([row.id for row in rows])).order_by(attempts.number)
    for row in connection.execute(mine):
        tries[row.delivery_id].append(
            DeliveryAttempt(row.number, row.started_at, row.ended_at, row.status_code, row.detail)
        )
    return [_delivery_of(row, tuple(tries[row.id])) for row in rows]


def _delivery_of(row: Row[Any], tries: tuple[DeliveryAttempt, ...]) -> Delivery:
    return Delivery(
        id=row.id,
        tenant=row.tenant,
        endpoint_id=row.endpoint_id,
        url=row.url,
        event=event_of(row),
        state=DeliveryState(row.state),
        next_at=row.next_at,
        attempts=tries,
    )


def event_of(row: Row[Any]) -> Event:
    """The event of a delivery's row."""
    return Event(row.event_id, row.event_type, row.subject, row.created_at)
