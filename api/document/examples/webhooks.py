"""Webhooks."""

from typing import Any

from api.document.example import Example, Examples
from jobs.webhooks.event import EVENT_TYPES

ID = "we_01a200d2a1e37c0d9c5f3c1b7d9a4e21"
SECRET = "whsec_dGhpcyBpcyBhbiBleGFtcGxlLCBub3QgYSBzZWNyZXQ="
HINT = "whsec_…ZXQ="
ENDPOINT: dict[str, Any] = {
    "id": ID,
    "object": "webhook_endpoint",
    "name": "shelf robot",
    "url": "https://example.com/hook",
    "event_types": ["response.completed", "response.failed"],
    "created_at": 1795303200,
    "updated_at": 1795303200,
    "signing_secret_hint": HINT,
    "status": "enabled",
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
}
DELIVERY_ID = "whd_6f3c1b7d9a4e21a200d2a1e37c0d9c5f"
DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "object": "webhook_delivery",
    "webhook_endpoint_id": ID,
    "url": None,
    "status": "delivered",
    "created_at": 1795303201,
    "next_attempt_at": None,
    "event": {
        "id": "evt_01a200d962f07cd8a8933db189547383",
        "object": "event",
        "created_at": 1795303201,
        "type": "response.completed",
        "data": {"id": "resp_01a20067b53c7c82b0a7fab40ae890f4"},
    },
    "attempts": [
        {
            "number": 1,
            "started_at": 1795303201.4,
            "ended_at": 1795303201.6,
            "status_code": 200,
            "detail": "",
        }
    ],
}
TENANTS: dict[str, Any] = {
    "object": "webhook_secret",
    "created_at": 1795303200,
    "updated_at": 1795303200,
    "signing_secret_hint": HINT,
}
OVERLAP = {"keep_old_secret_active_for_24_hours": True}


def _page(one: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [one], "first_id": one["id"], "last_id": one["id"], "has_more": False}


_AT = "/v1/webhook_endpoints/{endpoint_id}"

EXAMPLES: Examples = {
    "POST /v1/webhook_endpoints": Example(
        {name: ENDPOINT[name] for name in ("name", "url", "event_types")}, {200: ENDPOINT | {"signing_secret": SECRET}}
    ),
    "GET /v1/webhook_endpoints": Example(None, {200: _page(ENDPOINT)}),
    f"GET {_AT}": Example(None, {200: ENDPOINT}),
    f"POST {_AT}": Example({"status": "enabled"}, {200: ENDPOINT}),
    f"DELETE {_AT}": Example(None, {200: {"id": ID, "object": "webhook_endpoint.deleted", "deleted": True}}),
    f"POST {_AT}/rotate_secret": Example(OVERLAP, {200: ENDPOINT | {"signing_secret": SECRET}}),
    f"POST {_AT}/test": Example(
        {"event_type": "response.completed"},
        {
            200: {
                "object": "webhook_endpoint.test",
                "event_type": "response.completed",
                "status_code": 200,
                "success": True,
                "webhook_endpoint_id": ID,
            }
        },
    ),
    f"POST {_AT}/replay": Example(
        {"since": "2026-11-22T00:00:00+00:00"},
        {200: {"object": "webhook_endpoint.replay", "webhook_endpoint_id": ID, "deliveries": 3}},
    ),
    f"GET {_AT}/deliveries": Example(None, {200: _page(DELIVERY)}),
    "GET /v1/webhook_deliveries": Example(None, {200: _page(DELIVERY)}),
    "GET /v1/webhook_deliveries/{delivery_id}": Example(None, {200: DELIVERY}),
    "POST /v1/webhook_deliveries/{delivery_id}/replay": Example(
        None, {200: DELIVERY | {"status": "pending", "next_attempt_at": 1795303260.0}}
    ),
    "GET /v1/webhook_secret": Example(None, {200: TENANTS}),
    "POST /v1/webhook_secret/rotate": Example(OVERLAP, {200: TENANTS | {"signing_secret": SECRET}}),
    "GET /v1/webhook_event_types": Example(None, {200: {"object": "list", "data": list(EVENT_TYPES)}}),
}
