"""Registered endpoints and signing secrets on PostgreSQL. Every method is one transaction; all raise StoreUnavailable.

Whoever needs the lock of an endpoint and of its deliveries takes the endpoint's first, and takes it so that the ends of
jobs, which write deliveries, never wait for it.
"""

from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from jobs.database import Database
from jobs.errors import TooManyWebhookEndpoints, WebhookEndpointNotFound
from jobs.idempotency import IdempotencyKey, claim
from jobs.ids import new_id
from jobs.store.purge import forget_results
from jobs.tables import webhook_deliveries, webhook_endpoints, webhook_secrets
from jobs.webhooks.endpoint import Endpoint, EndpointChange, TenantSecret
from jobs.webhooks.signature import new_secret

OVERLAP = text("now() + interval '24 hours'")
"""Until when a replaced secret signs beside the new one."""

endpoints = webhook_endpoints.c
deliveries = webhook_deliveries.c


class PostgresWebhookEndpoints:
    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most

    def create(
        self, tenant: str, name: str, url: str, event_types: tuple[str, ...], idempotency: IdempotencyKey | None = None
    ) -> Endpoint:
        """Raises TooManyWebhookEndpoints, IdempotencyKeyTaken."""
        row = {
            "id": new_id("we_"),
            "tenant": tenant,
            "name": name,
            "url": url,
            "event_types": list(event_types),
            "secret": new_secret(),
        }

        def work(on: Connection) -> Endpoint:
            if idempotency is not None:
                claim(on, idempotency, str(row["id"]))
            count = select(func.count()).select_from(webhook_endpoints).where(endpoints.tenant == tenant)
            if on.execute(count).scalar_one() >= self._most:
                raise TooManyWebhookEndpoints(self._most)
            made = insert(webhook_endpoints).values(**row).returning(webhook_endpoints)
            return _endpoint_of(on.execute(made).one())

        return self._database.transaction(work)

    def get(self, endpoint_id: str, tenant: str) -> Endpoint:
        """Raises WebhookEndpointNotFound, also for another tenant's."""
        return self._database.statement(lambda on: _endpoint_of(_row(on, endpoint_id, tenant)))

    def page(self, tenant: str, after: str | None, limit: int) -> list[Endpoint]:
        """Newest first. Raises WebhookEndpointNotFound for an unknown `after`."""

        def work(on: Connection) -> list[Endpoint]:
            rows = select(webhook_endpoints).where(endpoints.tenant == tenant)
            if after is not None:
                rows = rows.where(endpoints.number < _row(on, after, tenant).number)
            found = on.execute(rows.order_by(endpoints.number.desc()).limit(limit))
            return [_endpoint_of(row) for row in found]

        return self._database.statement(work)

    def update(self, endpoint_id: str, tenant: str, change: EndpointChange) -> Endpoint:
        """Switching on lets what was held go at once. A change of nothing leaves `updated_at`. Raises
        WebhookEndpointNotFound."""

        def work(on: Connection) -> Endpoint:
            known = _locked(on, endpoint_id, tenant)
            values = _differences(_endpoint_of(known), change)
            if not values:
                return _endpoint_of(known)
            changed = update(webhook_endpoints).where(endpoints.id == endpoint_id)
            row = on.execute(changed.values(**values, updated_at=func.now()).returning(webhook_endpoints)).one()
            if change.enabled is True and known.disabled_at is not None:
                release(on, endpoint_id)
            if change.enabled is False and known.disabled_at is None:
                hold(on, endpoint_id)
            return _endpoint_of(row)

        return self._database.transaction(work)

    def delete(self, endpoint_id: str, tenant: str) -> None:
        """With its deliveries: what is under way ends unrecorded. Raises WebhookEndpointNotFound."""

        def work(on: Connection) -> None:
            _locked(on, endpoint_id, tenant)
            on.execute(delete(webhook_endpoints).where(endpoints.id == endpoint_id))
            on.execute(delete(webhook_deliveries).where(deliveries.endpoint_id == endpoint_id))
            forget_results(on, [endpoint_id])

        self._database.transaction(work)

    def rotate(self, endpoint_id: str, tenant: str, *, overlap: bool) -> Endpoint:
        """A new secret; with `overlap` the old one signs too for 24 hours. Raises WebhookEndpointNotFound."""
        values: dict[str, Any] = {
            "secret": new_secret(),
            "old_secret": endpoints.secret if overlap else None,
            "old_secret_until": OVERLAP if overlap else None,
            "updated_at": func.now(),
        }
        mine = update(webhook_endpoints).where(endpoints.id == endpoint_id, endpoints.tenant == tenant)
        row = self._database.statement(
            lambda on: on.execute(mine.values(**values).returning(webhook_endpoints)).one_or_none()
        )
        if row is None:
            raise WebhookEndpointNotFound(endpoint_id)
        return _endpoint_of(row)

    def secret(self, tenant: str) -> TenantSecret:
        """The tenant's own, made when it is first asked for."""

        def work(on: Connection) -> TenantSecret:
            new = upsert(webhook_secrets).values(tenant=tenant, secret=new_secret())
            on.execute(new.on_conflict_do_nothing())
            return _secret_of(on.execute(select(webhook_secrets).where(webhook_secrets.c.tenant == tenant)).one())

        return self._database.statement(work)

    def rotate_secret(self, tenant: str, *, overlap: bool) -> TenantSecret:
        """As `rotate`, of the tenant's own."""
        self.secret(tenant)
        values: dict[str, Any] = {
            "secret": new_secret(),
            "old_secret": webhook_secrets.c.secret if overlap else None,
            "old_secret_until": OVERLAP if overlap else None,
            "updated_at": func.now(),
        }
        changed = update(webhook_secrets).where(webhook_secrets.c.tenant == tenant).values(**values)
        return self._database.statement(
            lambda on: _secret_of(on.execute(changed.returning(webhook_secrets)).one()),
        )


def release(connection: Connection, endpoint_id: str) -> None:
    """Of a locked endpoint that is switched on: what was held is due."""
    held = update(webhook_deliveries).where(deliveries.endpoint_id == endpoint_id, deliveries.state == "held")
    connection.execute(held.values(state="pending", next_at=func.now()))


def hold(connection: Connection, endpoint_id: str) -> None:
    """Of a locked endpoint that is switched off: what waits is held. What is under way ends by itself."""
    waiting = update(webhook_deliveries).where(
        deliveries.endpoint_id == endpoint_id,
        deliveries.state == "pending",
        func.coalesce(deliveries.leased_until, func.now()) <= func.now(),
    )
    connection.execute(waiting.values(state="held"))


def _row(connection: Connection, endpoint_id: str, tenant: str) -> Row[Any]:
    mine = select(webhook_endpoints).where(endpoints.id == endpoint_id, endpoints.tenant == tenant)
    row = connection.execute(mine).one_or_none()
    if row is None:
        raise WebhookEndpointNotFound(endpoint_id)
    return row


def _locked(connection: Connection, endpoint_id: str, tenant: str) -> Row[Any]:
    mine = select(webhook_endpoints).where(endpoints.id == endpoint_id, endpoints.tenant == tenant)
    row = connection.execute(mine.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise WebhookEndpointNotFound(endpoint_id)
    return row


def _differences(known: Endpoint, change: EndpointChange) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if change.name not in (None, known.name):
        values["name"] = change.name
    if change.url not in (None, known.url):
        values["url"] = change.url
    if change.event_types is not None and change.event_types != known.event_types:
        values["event_types"] = list(change.event_types)
    if change.enabled is True and known.disabled_at is not None:
        values |= {"disabled_at": None, "disabled_because": None, "failing_since": None}
    if change.enabled is False and known.disabled_at is None:
        values |= {"disabled_at": func.now(), "disabled_because": "switched off by its owner"}
    return values


def _endpoint_of(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        url=row.url,
        event_types=tuple(row.event_types),
        secret=row.secret,
        created_at=row.created_at,
        updated_at=row.updated_at,
        failing_since=row.failing_since,
        disabled_at=row.disabled_at,
        disabled_because=row.disabled_because,
    )


def _secret_of(row: Row[Any]) -> TenantSecret:
    return TenantSecret(row.tenant, row.secret, row.created_at, row.updated_at)
