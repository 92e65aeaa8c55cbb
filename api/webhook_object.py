"""Webhook endpoints, deliveries and signing secrets as the API shows them. Renders only.

A secret is in what has just made it, and in nothing else.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from jobs.webhooks.delivery import Delivery, DeliveryState
from jobs.webhooks.endpoint import Endpoint, TenantSecret


class WebhookEndpointObject(BaseModel):
    """OpenAI's, and whether it is switched on: `disabled_reason` says why not. `failing_since`: nothing has arrived
    since then."""

    id: str
    object: str = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    status: str
    disabled_at: int | None
    disabled_reason: str | None
    failing_since: int | None


class WebhookEndpointWithSecret(WebhookEndpointObject):
    """The only time that the secret is shown."""

    signing_secret: str


class WebhookEndpointList(BaseModel):
    object: str = "list"
    data: list[WebhookEndpointObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhookEndpoint(BaseModel):
    id: str
    object: str = "webhook_endpoint.deleted"
    deleted: bool = True


class WebhookEndpointTest(BaseModel):
    object: str = "webhook_endpoint.test"
    event_type: str
    status_code: int
    success: bool = True
    webhook_endpoint_id: str


class WebhookEventTypeList(BaseModel):
    object: str = "list"
    data: list[str]


class WebhookReplay(BaseModel):
    """How many deliveries are due again."""

    object: str = "webhook_endpoint.replay"
    webhook_endpoint_id: str
    deliveries: int


class WebhookSecretObject(BaseModel):
    """Of the tenant: signs for jobs that brought a URL without a secret."""

    object: str = "webhook_secret"
    created_at: int
    updated_at: int
    signing_secret_hint: str


class NewWebhookSecret(WebhookSecretObject):
    """The only time that the secret is shown."""

    signing_secret: str


class WebhookAttemptObject(BaseModel):
    """One try. `status_code` null: there was no answer, `detail` says why. `ended_at` null: under way, or lost."""

    number: int
    started_at: float
    ended_at: float | None
    status_code: int | None
    detail: str


class WebhookDeliveryObject(BaseModel):
    """`event` is what is sent; its `id` is the header `webhook-id` of every try. `url` is that of a job's own webhook.
    `next_attempt_at` is null unless the delivery is pending."""

    id: str
    object: str = "webhook_delivery"
    webhook_endpoint_id: str | None
    url: str | None
    status: str
    created_at: int
    next_attempt_at: float | None
    event: dict[str, Any]
    attempts: list[WebhookAttemptObject]


class WebhookDeliveryList(BaseModel):
    object: str = "list"
    data: list[WebhookDeliveryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def endpoint_object(endpoint: Endpoint) -> WebhookEndpointObject:
    return WebhookEndpointObject(**_endpoint(endpoint))


def endpoint_with_secret(endpoint: Endpoint) -> WebhookEndpointWithSecret:
    return WebhookEndpointWithSecret(**_endpoint(endpoint), signing_secret=endpoint.secret)


def endpoint_list(endpoints: Sequence[Endpoint], has_more: bool) -> WebhookEndpointList:
    data = [endpoint_object(endpoint) for endpoint in endpoints]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return WebhookEndpointList(data=data, first_id=first, last_id=last, has_more=has_more)


def secret_object(secret: TenantSecret) -> WebhookSecretObject:
    return WebhookSecretObject(**_secret(secret))


def new_secret_object(secret: TenantSecret) -> NewWebhookSecret:
    return NewWebhookSecret(**_secret(secret), signing_secret=secret.secret)


def delivery_object(delivery: Delivery) -> WebhookDeliveryObject:
    pending = delivery.state is DeliveryState.PENDING
    return WebhookDeliveryObject(
        id=delivery.id,
        webhook_endpoint_id=delivery.endpoint_id,
        url=delivery.url,
        status=delivery.state.value,
        created_at=int(delivery.event.created_at.timestamp()),
        next_attempt_at=delivery.next_at.timestamp() if pending else None,
        event=msgspec.json.decode(delivery.event.payload()),
        attempts=[
            WebhookAttemptObject(
                number=attempt.number,
                started_at=attempt.started_at.timestamp(),
                ended_at=None if attempt.ended_at is None else attempt.ended_at.timestamp(),
                status_code=attempt.status_code,
                detail=attempt.detail,
            )
            for attempt in delivery.attempts
        ],
    )


def delivery_list(deliveries: Sequence[Delivery], has_more: bool) -> WebhookDeliveryList:
    data = [delivery_object(delivery) for delivery in deliveries]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return WebhookDeliveryList(data=data, first_id=first, last_id=last, has_more=has_more)


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int(endpoint.updated_at.timestamp()),
        "signing_secret_hint": endpoint.hint,
        "status": "enabled" if endpoint.disabled_at is None else "disabled",
        "disabled_at": _unix(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_because,
        "failing_since": _unix(endpoint.failing_since),
    }


def _secret(secret: TenantSecret) -> dict[str, Any]:
    return {
        "created_at": int(secret.created_at.timestamp()),
        "updated_at": int(secret.updated_at.timestamp()),
        "signing_secret_hint": secret.hint,
    }


def _unix(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())
