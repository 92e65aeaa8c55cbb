"""Finding the responses that a tenant may read again."""

from typing import Annotated

from fastapi import Depends

from api.errors import ApiError
from api.query import JOB_ID
from jobs.errors import JobNotFound
from jobs.job import Job, JobKind
from jobs.ports import JobStore


def stored_response(store: JobStore, response_id: str, tenant: str) -> Job:
    """Raises ApiError (404) for what is unknown, another's, no response, or was asked for with `store: false`;
    StoreUnavailable."""
    try:
        job = store.get(response_id, tenant)
    except JobNotFound:
        job = None
    if job is None or job.kind is not JobKind.RESPONSE or not job.origin.stored:
        raise not_found(response_id)
    return job


def not_found(response_id: str) -> ApiError:
    message = f"Response with id {response_id[:100]!r} not found."
    return ApiError(message, status=404, param="response_id", code="response_not_found")


def _response_id(response_id: str) -> str:
    """What cannot be an id is not looked for: PostgreSQL takes no U+0000. Raises ApiError (404)."""
    if JOB_ID.fullmatch(response_id) is None:
        raise not_found(response_id)
    return response_id


ResponseId = Annotated[str, Depends(_response_id)]
