"""From exception to HTTP response: one table. Every body is OpenAI's `{"error": {message, type, param, code}}`.

ApiError                 a request's own fault, or a refusal; carries its answer
├── Unsupported          a field or value that OpenAI has and this service has not
└── ServerClosing        the process is going down; ask another one
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from jobs.errors import (
    BatchNotActive,
    BatchNotFound,
    BlobNotFound,
    FileNotFound,
    IdempotencyKeyReused,
    IdempotencyKeyTaken,
    IllegalTransition,
    JobNotFinished,
    JobNotFound,
    JobOfBatch,
    JobPurged,
    JobUnreadable,
    TooManyWebhookEndpoints,
    Unavailable,
    VlmqError,
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
)
from jobs.job import JobError

INVALID = "invalid_request_error"
SERVER = "server_error"
NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients repeat 409 and 5xx by themselves unless told not to."""


class ApiError(Exception):
    """An answer to give instead of a result."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class Unsupported(ApiError):
    """Refused by name: it is OpenAI's, but this service does not do it."""

    def __init__(self, param: str, why: str = "") -> None:
        message = f"{param!r} is not supported" + (f": {why}" if why else "") + "."
        super().__init__(message, param=param, code="unsupported_parameter")


class ServerClosing(ApiError):
    """The process got a signal to end while the request waited."""

    def __init__(self, message: str = "The server is shutting down; try again.") -> None:
        super().__init__(message, status=503, kind=SERVER, code="server_closing", headers={"retry-after": "1"})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    kind: str
    code: str
    headers: Mapping[str, str]


ANSWERS: dict[type[VlmqError], Answer] = {
    JobNotFound: Answer(404, INVALID, "job_not_found", {}),
    BlobNotFound: Answer(404, INVALID, "image_file_not_found", {}),
    FileNotFound: Answer(404, INVALID, "file_not_found", {}),
    BatchNotFound: Answer(404, INVALID, "batch_not_found", {}),
    BatchNotActive: Answer(409, INVALID, "batch_not_active", NO_RETRY),
    JobOfBatch: Answer(409, INVALID, "job_of_batch", NO_RETRY),
    JobPurged: Answer(410, INVALID, "job_purged", {}),
    JobUnreadable: Answer(409, INVALID, "job_unreadable", NO_RETRY),
    JobNotFinished: Answer(409, INVALID, "job_not_finished", NO_RETRY),
    IllegalTransition: Answer(409, INVALID, "illegal_transition", NO_RETRY),
    WebhookEndpointNotFound: Answer(404, INVALID, "webhook_endpoint_not_found", {}),
    WebhookDeliveryNotFound: Answer(404, INVALID, "webhook_delivery_not_found", {}),
    WebhookEndpointDisabled: Answer(409, INVALID, "webhook_endpoint_disabled", NO_RETRY),
    TooManyWebhookEndpoints: Answer(400, INVALID, "too_many_webhook_endpoints", {}),
    IdempotencyKeyReused: Answer(422, INVALID, "idempotency_key_reused", NO_RETRY),
    IdempotencyKeyTaken: Answer(409, INVALID, "idempotency_key_in_use", {}),
    Unavailable: Answer(503, SERVER, "service_unavailable", {"retry-after": "2"}),
}

REQUEST_FAULTS = frozenset(
    {
        "context_length_exceeded", "invalid_prompt", "invalid_sampling", "invalid_image", "invalid_image_format",
        "invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small", "image_parse_error",
        "invalid_image_mode", "image_file_too_large", "unsupported_image_media_type", "empty_image_file",
        "failed_to_download_image", "image_file_not_found", "image_content_policy_violation", "too_many_images",
        "too_many_videos", "invalid_video", "invalid_video_url", "unsupported_video_media_type", "empty_video_file",
        "video_file_too_large", "video_too_large", "video_parse_error", "failed_to_download_video",
        "video_file_not_found", "invalid_json_schema", "video_decode_timeout", "invalid_video_bounds",
    }
)  # fmt: skip
"""Codes of failed jobs that another try of the same request would get again."""


def of_job(error: JobError, job_id: str) -> ApiError:
    """What a caller who waited for a job gets when it failed."""
    where = f" (job {job_id})"
    if error.code in REQUEST_FAULTS:
        return ApiError(error.message + where, param=error.param, code=error.code)
    if error.code == "deadline_exceeded":
        return ApiError(error.message + where, status=504, kind=SERVER, code=error.code, headers=NO_RETRY)
    return ApiError(
        error.message + where, status=500, kind=SERVER, param=error.param, code=error.code, headers=NO_RETRY
    )


def as_api_error(exc: Exception) -> ApiError:
    """The answer to any exception; what is in no table is a 500 that tells nothing of the inside."""
    if isinstance(exc, ApiError):
        return exc
    for kind in type(exc).__mro__:
        if (answer := ANSWERS.get(kind)) is not None:
            # An ill service's message names hosts and drivers: that is for the log, not for the client.
            message = "A backing service does not answer; try again." if kind is Unavailable else str(exc)
            return ApiError(message, status=answer.status, kind=answer.kind, code=answer.code, headers=answer.headers)
    if isinstance(exc, RequestValidationError):
        return _of_parameters(exc)
    if isinstance(exc, HTTPException):
        return _of_http(exc)
    return ApiError("The server had an error while processing your request.", status=500, kind=SERVER, code=SERVER)


def _of_parameters(exc: RequestValidationError) -> ApiError:
    first = exc.errors()[0]
    name = str(first["loc"][-1])
    return ApiError(
        f"Invalid value for {name!r}: {first['msg']}, got {first.get('input')!r:.100}.",
        param=name,
        code="invalid_value",
    )


def _of_http(exc: HTTPException) -> ApiError:
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    message = str(exc.detail)
    if message == HTTPStatus(exc.status_code).phrase:
        message += "."
    return ApiError(message, status=exc.status_code, code=codes.get(exc.status_code, "http_error"), headers=exc.headers)


def error_body(error: ApiError) -> dict[str, dict[str, str | None]]:
    return {"error": {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}}


def error_response(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode(error_body(error))
    return Response(body, error.status, {**error.headers, **(headers or {})}, media_type="application/json")


async def _answer(request: Request, exc: Exception) -> Response:
    error = as_api_error(exc)
    if isinstance(exc, HTTPException) and error.code in ("unknown_url", "method_not_allowed"):
        error.message = f"{error.message.rstrip('.')}: {request.method} {request.url.path}"
    return error_response(error)


def install(app: FastAPI) -> None:
    """Lets every expected exception be answered by the table; the unexpected ones go on to the edge."""
    for kind in (ApiError, VlmqError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer)
