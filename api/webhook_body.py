"""Bodies of the routes of webhooks, and the ids in their paths."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from pydantic import Field, StringConstraints

from api.body import parse_object, read_body
from api.errors import ApiError
from api.query import JOB_ID
from api.schema import validate
from api.wire import Text, Wire
from jobs.errors import WebhookDeliveryNotFound, WebhookEndpointNotFound
from jobs.webhooks.event import EVENT_TYPES

MOST_BYTES = 64 * 1024
LATEST = 2**33
"""Unix seconds that a clock may still show."""

Name = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
EventTypes = Annotated[list[Text], Field(min_length=1, max_length=len(EVENT_TYPES))]


class WebhookEndpointBody(Wire):
    """A new endpoint."""

    name: Name
    url: Text
    event_types: EventTypes


class WebhookEndpointUpdate(Wire):
    """What is absent stays. `status` switches the endpoint off, or on again."""

    name: Name | None = None
    url: Text | None = None
    event_types: EventTypes | None = None
    status: Literal["enabled", "disabled"] | None = None


class RotateSecretBody(Wire):
    keep_old_secret_active_for_24_hours: bool = False


class WebhookTestBody(Wire):
    event_type: Text


class WebhookReplayBody(Wire):
    """Unix seconds, or an ISO 8601 instant with its offset."""

    since: Annotated[float, Field(ge=0, lt=LATEST)] | Annotated[str, StringConstraints(max_length=64)]

    def instant(self) -> datetime:
        """Raises ApiError."""
        if not isinstance(self.since, str):
            return datetime.fromtimestamp(self.since, UTC)
        try:
            instant = datetime.fromisoformat(self.since)
        except ValueError as exc:
            raise _no_instant(self.since) from exc
        if instant.tzinfo is None:
            raise _no_instant(self.since)
        return instant


BODIES: tuple[type[Wire], ...] = (
    WebhookEndpointBody,
    WebhookEndpointUpdate,
    RotateSecretBody,
    WebhookTestBody,
    WebhookReplayBody,
)


def _no_instant(since: str) -> ApiError:
    message = f"Invalid value for 'since': must be Unix seconds or an ISO 8601 instant with its offset, got {since!r}."
    return ApiError(message, param="since", code="invalid_value")


async def rotation_of(request: Request) -> RotateSecretBody:
    """The body may be absent."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return RotateSecretBody()
    return validate(RotateSecretBody, await object_of(request))


async def object_of(request: Request) -> dict[str, Any]:
    """Raises ApiError."""
    return parse_object(await read_body(request, MOST_BYTES))


def _endpoint_id(endpoint_id: str) -> str:
    if JOB_ID.fullmatch(endpoint_id) is None:
        raise WebhookEndpointNotFound(endpoint_id[:100])
    return endpoint_id


def _delivery_id(delivery_id: str) -> str:
    if JOB_ID.fullmatch(delivery_id) is None:
        raise WebhookDeliveryNotFound(delivery_id[:100])
    return delivery_id


EndpointId = Annotated[str, Depends(_endpoint_id)]
DeliveryId = Annotated[str, Depends(_delivery_id)]
