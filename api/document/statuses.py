"""Which errors an operation may answer with, by what it takes and does. Knows no schema but the error's."""

from typing import Any

ERROR_REF = {"$ref": "#/components/schemas/Error"}

ERROR: dict[str, Any] = {
    "type": "object",
    "title": "Error",
    "description": "The body of every error.",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}

MEANING: dict[int, str] = {
    400: "The request is wrong, or asks for what is not supported; `param` names the place.",
    401: "No valid API key.",
    403: "The key may not do this.",
    404: "There is no such thing, or it is another tenant's.",
    409: "It conflicts with what is there: the thing's state, or a request of the same `Idempotency-Key` that runs.",
    410: "What the job was asked and answered is not kept any more.",
    413: "The body is longer than the server takes.",
    415: "The body is of another content type.",
    422: "The `Idempotency-Key` was used with another body.",
    429: "Too much at once; come back after `Retry-After` seconds.",
    500: "The work failed, or the server did.",
    503: "A service behind the API, or a worker, is away; come back after `Retry-After` seconds.",
    504: "The job's own deadline passed before its answer was there.",
}
WAITABLE = (429, 503)
"""Errors after which the same request may succeed."""

WORK = frozenset(
    {"/v1/jobs", "/v1/chat/completions", "/v1/responses", "/v1/files", "/v1/batches", "/v1/webhook_endpoints"}
)
"""What a POST to creates: it may carry an Idempotency-Key, and meets the limits."""
AWAITED = frozenset({"/v1/chat/completions", "/v1/responses"})
"""Where a client may wait for a job's end."""
CONTENT = frozenset(
    {("post", path) for path in AWAITED} | {("get", "/v1/jobs/{job_id}/events"), ("post", "/v1/jobs/{job_id}/requeue")}
)
"""What needs a job's content, which may be gone while its row is there."""
POLLED = frozenset(
    {
        ("post", "/v1/jobs"),
        ("get", "/v1/jobs/{job_id}"),
        ("post", "/v1/responses"),
        ("get", "/v1/responses/{response_id}"),
    }
)
"""What answers with a job that may not have ended."""
OPEN = frozenset({"/healthz", "/metrics"})
"""What asks for no key and reads no parameter."""

REQUEST_ID = {"description": "Names the request in the log.", "required": True, "schema": {"type": "string"}}
RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
POLL_AFTER = {
    "description": "After how many milliseconds to ask again, before the end.",
    "schema": {"type": "integer", "minimum": 1},
}
REPLAYED = {
    "description": "The answer is that of the first request of this `Idempotency-Key`.",
    "schema": {"enum": ["true"]},
}
RATE_LIMITS = {
    f"x-ratelimit-{said}-{what}": {"description": meaning.format(what=what), "schema": schema}
    for what in ("requests", "tokens")
    for said, meaning, schema in (
        ("limit", "How many {what} the key may use per minute, if that is limited.", {"type": "integer"}),
        ("remaining", "How many {what} the key has left.", {"type": "integer"}),
        ("reset", "How long until all {what} are back: `1m30s`.", {"type": "string"}),
    )
}


def errors_of(method: str, path: str, operation: dict[str, Any]) -> set[int]:
    """The error statuses of one operation."""
    if path in OPEN:
        return {401, 500, 503} if path == "/metrics" else {500}
    found = {400, 500, 503}
    if path.startswith("/v1/"):
        found |= {401, 429}
    if "{" in path:
        found.add(404)
        if method != "get":
            found.add(409)
    if any(parameter["name"] == "after" for parameter in operation.get("parameters", [])):
        found.add(404)
    if "requestBody" in operation:
        found |= {404, 413, 415}
    if path in WORK and method == "post":
        found |= {409, 422}
    if path in AWAITED and method == "post":
        found.add(504)
    if (method, path) in CONTENT:
        found.add(410)
    return found


def headers_of(method: str, path: str, status: int) -> dict[str, Any]:
    """What every answer of an operation with this status may carry."""
    headers: dict[str, Any] = {"x-request-id": REQUEST_ID}
    if path.startswith("/v1/") and status != 401:
        headers |= RATE_LIMITS
    if method == "post" and path in WORK and status < 300:
        headers["idempotent-replayed"] = REPLAYED
    if (method, path) in POLLED and status < 300:
        headers["openai-poll-after-ms"] = POLL_AFTER
    return headers


def error_response(status: int) -> dict[str, Any]:
    """What the document says of one error."""
    headers: dict[str, Any] = {}
    if status in WAITABLE:
        headers["retry-after"] = RETRY_AFTER
    if status == 401:
        headers["www-authenticate"] = {"schema": {"type": "string"}}
    return {"description": MEANING[status], "headers": headers, "content": {"application/json": {"schema": ERROR_REF}}}
