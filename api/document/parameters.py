"""Parameters that a route reads from the request itself, so that its signature does not tell of them."""

from typing import Any

from api.document.statuses import WORK

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same request again within 24 hours is answered with what the first one made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}
LAST_EVENT_ID: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The sequence number seen last, as a browser sends it; `starting_after` wins over it.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
}
METADATA: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "description": "`metadata[key]=value`: only those that carry this pair.",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
STREAMS = frozenset({"/v1/jobs/{job_id}/events", "/v1/responses/{response_id}"})
BY_METADATA = frozenset({"/v1/jobs", "/v1/chat/completions"})


def more_parameters(method: str, path: str) -> list[dict[str, Any]]:
    """Of one operation."""
    if method == "post":
        return [IDEMPOTENCY_KEY] if path in WORK else []
    if method == "get":
        return [LAST_EVENT_ID] * (path in STREAMS) + [METADATA] * (path in BY_METADATA)
    return []
