"""`/v1/webhook_endpoints`: register, list, read, change, remove, rotate, test, replay; and the event types."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.auth import Caller, KnownCaller, Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.errors import ApiError
from api.idempotency import Made, key_of
from api.openapi import json_body
from api.query import known_only
from api.schema import validate
from api.webhook_body import (
    MOST_BYTES,
    EndpointId,
    RotateSecretBody,
    WebhookEndpointBody,
    WebhookEndpointUpdate,
    WebhookReplayBody,
    WebhookTestBody,
    object_of,
    rotation_of,
)
from api.webhook_field import check_types, check_url
from api.webhook_object import (
    DeletedWebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointObject,
    WebhookEndpointTest,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
    WebhookReplay,
    endpoint_list,
    endpoint_object,
    endpoint_with_secret,
)
from jobs.idempotency import IdempotencyKey
from jobs.ids import new_id
from jobs.webhooks.delivery import Answer
from jobs.webhooks.endpoint import Endpoint, EndpointChange
from jobs.webhooks.event import EVENT_TYPES, Event
from jobs.webhooks.outbox import EVENT_PREFIX

router = APIRouter(prefix="/v1", tags=["webhooks"])

SAMPLES = {"response": "resp_test", "batch": "batch_test", "job": "job_test"}


@router.post("/webhook_endpoints", summary="Register an endpoint", openapi_extra=json_body(WebhookEndpointBody))
async def create_endpoint(request: Request, caller: KnownCaller, response: Response) -> WebhookEndpointWithSecret:
    """The answer is the only one that holds `signing_secret`. The URL is https to a public address."""
    backend = backend_of(request)
    raw = await read_body(request, MOST_BYTES)
    made = await backend.threads.call(_create, backend, raw, caller, key_of(request, caller, raw))
    response.headers.update(made.headers)
    return endpoint_with_secret(made.value)


def _create(backend: Backend, raw: bytes, caller: Caller, key: IdempotencyKey | None) -> Made[Endpoint]:
    store = backend.webhooks.endpoints

    def make() -> Endpoint:
        body = validate(WebhookEndpointBody, parse_object(raw))
        types = check_types(body.event_types, EVENT_TYPES, "event_types")
        check_url(body.url, "url", backend.webhooks.destinations)
        return store.create(caller.tenant, body.name, body.url, types, key)

    return backend.once.do(key, lambda endpoint_id: store.get(endpoint_id, caller.tenant), make)


@router.get("/webhook_endpoints", summary="List endpoints, newest first")
async def list_endpoints(
    request: Request, tenant: Tenant, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> WebhookEndpointList:
    known_only(request, "after", "limit")
    backend = backend_of(request)
    found = await backend.threads.call(backend.webhooks.endpoints.page, tenant, after, limit + 1)
    return endpoint_list(found[:limit], has_more=len(found) > limit)


@router.get("/webhook_endpoints/{endpoint_id}", summary="Read an endpoint")
async def get_endpoint(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> WebhookEndpointObject:
    backend = backend_of(request)
    return endpoint_object(await backend.threads.call(backend.webhooks.endpoints.get, endpoint_id, tenant))


@router.post(
    "/webhook_endpoints/{endpoint_id}", summary="Change an endpoint", openapi_extra=json_body(WebhookEndpointUpdate)
)
async def update_endpoint(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> WebhookEndpointObject:
    """`status: "enabled"` switches one on again that was disabled; what waited meanwhile is sent at once."""
    backend = backend_of(request)
    body = validate(WebhookEndpointUpdate, await object_of(request))
    return endpoint_object(await backend.threads.call(_update, backend, endpoint_id, tenant, body))


def _update(backend: Backend, endpoint_id: str, tenant: str, body: WebhookEndpointUpdate) -> Endpoint:
    types = None if body.event_types is None else check_types(body.event_types, EVENT_TYPES, "event_types")
    if body.url is not None:
        check_url(body.url, "url", backend.webhooks.destinations)
    enabled = None if body.status is None else body.status == "enabled"
    return backend.webhooks.endpoints.update(endpoint_id, tenant, EndpointChange(body.name, body.url, types, enabled))


@router.delete("/webhook_endpoints/{endpoint_id}", summary="Remove an endpoint")
async def delete_endpoint(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> DeletedWebhookEndpoint:
    """Its deliveries go with it."""
    backend = backend_of(request)
    await backend.threads.call(backend.webhooks.endpoints.delete, endpoint_id, tenant)
    return DeletedWebhookEndpoint(id=endpoint_id)


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret",
    summary="Replace an endpoint's secret",
    openapi_extra=json_body(RotateSecretBody),
)
async def rotate_secret(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> WebhookEndpointWithSecret:
    """With `keep_old_secret_active_for_24_hours` both sign for a day."""
    backend = backend_of(request)
    body = await rotation_of(request)
    rotated = await backend.threads.call(
        backend.webhooks.endpoints.rotate, endpoint_id, tenant, overlap=body.keep_old_secret_active_for_24_hours
    )
    return endpoint_with_secret(rotated)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test", summary="Send a sample event", openapi_extra=json_body(WebhookTestBody)
)
async def test_endpoint(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> WebhookEndpointTest:
    """Once, now, whatever the endpoint listens to; not recorded. An endpoint that gives no answer is 400."""
    backend = backend_of(request)
    body = validate(WebhookTestBody, await object_of(request))
    (event_type,) = check_types([body.event_type], EVENT_TYPES, "event_type")
    endpoint = await backend.threads.call(backend.webhooks.endpoints.get, endpoint_id, tenant)
    answer = await backend.webhooks.threads.call(_send_sample, backend, endpoint, event_type)
    if answer.status_code is None:
        message = f"The endpoint {endpoint_id!r} gave no answer: {answer.detail}."
        raise ApiError(message, code="webhook_test_failed")
    return WebhookEndpointTest(event_type=event_type, status_code=answer.status_code, webhook_endpoint_id=endpoint_id)


def _send_sample(backend: Backend, endpoint: Endpoint, event_type: str) -> Answer:
    subject = SAMPLES[event_type.partition(".")[0]]
    event = Event(new_id(EVENT_PREFIX), event_type, subject, datetime.now(UTC))
    return backend.webhooks.sender.send(endpoint.url, event, [endpoint.secret])


@router.post(
    "/webhook_endpoints/{endpoint_id}/replay",
    summary="Send everything since an instant again",
    openapi_extra=json_body(WebhookReplayBody),
)
async def replay_endpoint(endpoint_id: EndpointId, request: Request, tenant: Tenant) -> WebhookReplay:
    """All deliveries whose events happened at `since` or later and that do not wait anyway. Each keeps its
    `webhook-id`. 409 while the endpoint is disabled."""
    backend = backend_of(request)
    since = validate(WebhookReplayBody, await object_of(request)).instant()
    count = await backend.threads.call(backend.webhooks.deliveries.replay_since, endpoint_id, tenant, since)
    return WebhookReplay(webhook_endpoint_id=endpoint_id, deliveries=count)


@router.get("/webhook_event_types", summary="All event types that can be listened to")
async def list_event_types(request: Request, tenant: Tenant) -> WebhookEventTypeList:
    return WebhookEventTypeList(data=list(EVENT_TYPES))
