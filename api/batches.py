"""`/v1/batches`: create, read, list, cancel. The process of batches does the rest."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.auth import Caller, KnownCaller, Tenant
from api.backend import Backend, backend_of
from api.batch_body import BatchBody
from api.batch_object import BatchList, BatchObject, batch_list, batch_object
from api.body import parse_object, read_body
from api.errors import ApiError, Unsupported
from api.idempotency import Made, key_of
from api.openapi import json_body
from api.query import JOB_ID, BatchId, known_only
from api.schema import validate
from jobs.batches import Endpoint, NewBatch
from jobs.errors import FileNotFound
from jobs.files import File, Purpose
from jobs.idempotency import IdempotencyKey
from jobs.ids import new_id

router = APIRouter(prefix="/v1/batches", tags=["batches"])

RETRY_AFTER_S = 60
ELSEWHERE = (
    "/v1/embeddings", "/v1/completions", "/v1/moderations", "/v1/images/generations", "/v1/images/edits", "/v1/videos",
)  # fmt: skip
"""Endpoints of OpenAI's batches that this service has not."""


@router.post("", summary="Create a batch", openapi_extra=json_body(BatchBody))
async def create_batch(request: Request, caller: KnownCaller, response: Response) -> BatchObject:
    """Runs every line of an uploaded file as a request of the low-priority lane. The file is checked first: read the
    batch to see how that went."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    made = await backend.threads.call(_create, backend, raw, caller, key_of(request, caller, raw))
    response.headers.update(made.headers)
    return made.value


def _create(backend: Backend, raw: bytes, caller: Caller, key: IdempotencyKey | None) -> Made[BatchObject]:
    fields = parse_object(raw)
    if fields.get("endpoint") in ELSEWHERE:
        raise Unsupported("endpoint", f"{fields['endpoint']} is not served; {', '.join(Endpoint)} are")
    body = validate(BatchBody, fields)

    def make() -> BatchObject:
        file = _input(backend, body.input_file_id, caller.tenant)
        _admit(backend, caller.tenant)
        lifetime = body.output_expires_after
        new = NewBatch(
            id=new_id("batch_"),
            tenant=caller.tenant,
            key_id=caller.key_id,
            endpoint=Endpoint(body.endpoint),
            input_file_id=file.id,
            digest=file.digest,
            metadata=body.metadata,
            output_lifetime_s=None if lifetime is None else lifetime.seconds,
        )
        return batch_object(backend.batches.insert(new, key))

    return backend.once.do(key, lambda batch_id: batch_object(backend.batches.get(batch_id, caller.tenant)), make)


def _input(backend: Backend, file_id: str, tenant: str) -> File:
    if JOB_ID.fullmatch(file_id) is None:
        raise FileNotFound(file_id[:100])
    file = backend.files.get(file_id, tenant)
    if file.purpose is not Purpose.BATCH:
        message = f"The file {file.id!r} was uploaded with the purpose {file.purpose.value!r}; a batch needs 'batch'."
        raise ApiError(message, param="input_file_id", code="invalid_value")
    return file


def _admit(backend: Backend, tenant: str) -> None:
    most = backend.settings.max_batches
    if backend.batches.count_active(tenant) >= most:
        raise ApiError(
            f"{most} batches have not ended, which is the limit; retry after {RETRY_AFTER_S} s.",
            status=429,
            kind="rate_limit_error",
            code="too_many_batches",
            headers={"retry-after": str(RETRY_AFTER_S)},
        )


@router.get("", summary="List batches, newest first")
async def list_batches(
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> BatchList:
    """A page behind the batch `after`."""
    backend = backend_of(request)
    known_only(request, "after", "limit")
    # One more than asked for tells whether there are more.
    page = await backend.threads.call(backend.batches.page, tenant, after, limit + 1)
    return batch_list(page[:limit], has_more=len(page) > limit)


@router.get("/{batch_id}", summary="Read a batch")
async def get_batch(batch_id: BatchId, request: Request, tenant: Tenant) -> BatchObject:
    """`request_counts` are those of this moment."""
    backend = backend_of(request)
    return batch_object(await backend.threads.call(backend.batches.get, batch_id, tenant))


@router.post("/{batch_id}/cancel", summary="Cancel a batch")
async def cancel_batch(batch_id: BatchId, request: Request, tenant: Tenant) -> BatchObject:
    """It becomes `cancelling`, and `cancelled` when nothing of it runs any more and what was done stands in its
    files."""
    backend = backend_of(request)
    return batch_object(await backend.threads.call(backend.batches.cancel, batch_id, tenant))
