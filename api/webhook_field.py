"""The field `webhook` of whatever creates a job: where the end of this one job is told."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from api.errors import ApiError
from api.wire import Text, Wire
from jobs.job import Webhook
from jobs.webhooks.destination import DestinationRefused, Destinations
from jobs.webhooks.event import JOB_EVENTS, RESPONSE_EVENTS
from jobs.webhooks.signature import key_of

TYPES = RESPONSE_EVENTS + JOB_EVENTS


class WebhookObject(Wire):
    """`event_types`: `response.…` or `job.…`; without it all of `response.…`. `secret`: `whsec_` and Base64 of 24 to 64
    bytes; without it the tenant's own signs."""

    url: Text
    event_types: Annotated[list[Text], Field(min_length=1, max_length=len(TYPES))] | None = None
    secret: Text | None = None


def _as_object(webhook: Any) -> Any:
    return {"url": webhook} if isinstance(webhook, str) else webhook


WebhookField = Annotated[
    WebhookObject | None,
    BeforeValidator(_as_object, json_schema_input_type=str | WebhookObject | None),
    Field(description="A URL, or an object: where the end of the job is told (docs/webhooks.md)."),
]


def webhook_of(field: WebhookObject | None, destinations: Destinations) -> Webhook | None:
    """What the job keeps of it. May look the host up, for at most a few seconds. Raises ApiError."""
    if field is None:
        return None
    check_url(field.url, "webhook.url", destinations)
    types = check_types(field.event_types or (), TYPES, "webhook.event_types")
    try:
        if field.secret is not None:
            key_of(field.secret)
    except ValueError as exc:
        raise ApiError(
            f"Invalid value for 'webhook.secret': {exc}.", param="webhook.secret", code="invalid_value"
        ) from exc
    return Webhook(field.url, types, field.secret)


def check_url(url: str, param: str, destinations: Destinations) -> None:
    """Raises ApiError where webhooks may not go."""
    try:
        destinations.check(url)
    except DestinationRefused as exc:
        raise ApiError(f"Invalid value for {param!r}: {exc}.", param=param, code="invalid_webhook_url") from exc


def check_types(types: list[str] | tuple[str, ...], known: tuple[str, ...], param: str) -> tuple[str, ...]:
    """Each once, in their order. Raises ApiError for a type that never comes."""
    for name in types:
        if name not in known:
            there_are = ", ".join(known)
            message = f"Invalid value for {param!r}: there is no event {name[:100]!r} here; there are: {there_are}."
            raise ApiError(message, param=param, code="invalid_value")
    return tuple(dict.fromkeys(types))
