"""Deliveries of webhooks: listed, read, sent again; and the tenant's own signing secret."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request

from api.auth import Tenant
from api.backend import backend_of
from api.openapi import json_body
from api.query import known_only
from api.webhook_body import DeliveryId, EndpointId, RotateSecretBody, rotation_of
from api.webhook_object import (
    NewWebhookSecret,
    WebhookDeliveryList,
    WebhookDeliveryObject,
    WebhookSecretObject,
    delivery_list,
    delivery_object,
    new_secret_object,
    secret_object,
)
from jobs.webhooks.delivery import DeliveryFilter, DeliveryState

router = APIRouter(prefix="/v1", tags=["webhooks"])

Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/webhook_endpoints/{endpoint_id}/deliveries", summary="List an endpoint's deliveries, newest first")
async def list_endpoint_deliveries(
    endpoint_id: EndpointId,
    request: Request,
    tenant: Tenant,
    status: DeliveryState | None = None,
    event_type: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
) -> WebhookDeliveryList:
    """With all their tries."""
    known_only(request, "status", "event_type", "after", "limit")
    backend = backend_of(request)
    await backend.threads.call(backend.webhooks.endpoints.get, endpoint_id, tenant)
    return await _page(request, tenant, DeliveryFilter(endpoint_id, None, status, event_type, after, limit))


@router.get("/webhook_deliveries", summary="List all deliveries, newest first")
async def list_deliveries(
    request: Request,
    tenant: Tenant,
    subject: str | None = None,
    status: DeliveryState | None = None,
    event_type: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
) -> WebhookDeliveryList:
    """Also those of jobs' own webhooks. `subject` is the id of the job, response or batch that they tell of."""
    known_only(request, "subject", "status", "event_type", "after", "limit")
    return await _page(request, tenant, DeliveryFilter(None, subject, status, event_type, after, limit))


async def _page(request: Request, tenant: str, wanted: DeliveryFilter) -> WebhookDeliveryList:
    backend = backend_of(request)
    # One more than is shown tells whether there are more.
    more = replace(wanted, limit=wanted.limit + 1)
    found = await backend.threads.call(backend.webhooks.deliveries.page, tenant, more)
    return delivery_list(found[: wanted.limit], has_more=len(found) > wanted.limit)


@router.get("/webhook_deliveries/{delivery_id}", summary="Read a delivery")
async def get_delivery(delivery_id: DeliveryId, request: Request, tenant: Tenant) -> WebhookDeliveryObject:
    backend = backend_of(request)
    return delivery_object(await backend.threads.call(backend.webhooks.deliveries.get, delivery_id, tenant))


@router.post("/webhook_deliveries/{delivery_id}/replay", summary="Send a delivery again")
async def replay_delivery(delivery_id: DeliveryId, request: Request, tenant: Tenant) -> WebhookDeliveryObject:
    """Now, whatever became of it, with the same `webhook-id` and a new schedule. 409 while its endpoint is disabled."""
    backend = backend_of(request)
    return delivery_object(await backend.threads.call(backend.webhooks.deliveries.replay, delivery_id, tenant))


@router.get("/webhook_secret", summary="The tenant's own signing secret, but for the secret")
async def get_secret(request: Request, tenant: Tenant) -> WebhookSecretObject:
    """It signs for jobs that brought a `webhook` without a secret."""
    backend = backend_of(request)
    return secret_object(await backend.threads.call(backend.webhooks.endpoints.secret, tenant))


@router.post(
    "/webhook_secret/rotate",
    summary="Replace the tenant's own signing secret",
    openapi_extra=json_body(RotateSecretBody),
)
async def rotate_tenant_secret(request: Request, tenant: Tenant) -> NewWebhookSecret:
    """The answer is the only one that holds it. With `keep_old_secret_active_for_24_hours` both sign for a day."""
    backend = backend_of(request)
    body = await rotation_of(request)
    overlap = body.keep_old_secret_active_for_24_hours
    return new_secret_object(
        await backend.threads.call(backend.webhooks.endpoints.rotate_secret, tenant, overlap=overlap)
    )
