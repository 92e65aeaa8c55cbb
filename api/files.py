"""`/v1/files`: upload, list, read, download, delete."""

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, BinaryIO, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.auth import Caller, KnownCaller, Tenant
from api.backend import Backend, backend_of
from api.errors import ApiError, Unsupported
from api.expiry import SECONDS, lifetime_of
from api.file_object import DeletedFile, FileList, FileObject, file_list, file_object
from api.form import PIECE_BYTES, Form, read_form
from api.idempotency import Made, key_of
from api.query import FileId, known_only
from api.sse import EventStream
from api.threads import Threads
from jobs.errors import BlobsUnavailable
from jobs.files import File, FileFilter, NewFile, Purpose
from jobs.idempotency import IdempotencyKey
from jobs.ids import new_id

router = APIRouter(prefix="/v1/files", tags=["files"])

DAY_S = 86400
BATCH_FILE_LIFETIME_S = 30 * DAY_S
UPLOADS = (Purpose.BATCH, Purpose.VISION, Purpose.USER_DATA)
ELSEWHERE = ("assistants", "evals", "fine-tune")
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
MOST_LISTED = 10_000

FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": [purpose.value for purpose in UPLOADS]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": SECONDS[0], "maximum": SECONDS[1]},
                    },
                }
            }
        },
    }
}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file's bytes.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("", summary="Upload a file", openapi_extra=FORM)
async def upload_file(request: Request, caller: KnownCaller, response: Response) -> FileObject:
    """A form with the file and its `purpose`. Files of the purpose `batch` live for 30 days unless `expires_after`
    says something else, others until they are deleted."""
    backend = backend_of(request)
    settings = backend.settings
    form = await read_form(request, settings.max_file_bytes, backend.services.spool_folder, backend.file_threads)
    try:
        new = await backend.file_threads.call(_stored, backend, form, caller)
    finally:
        form.close()
    content = (new.digest, new.filename, *(f"{name}={value}" for name, value in sorted(form.fields.items())))
    key = key_of(request, caller, *(part.encode() for part in content))
    made = await backend.threads.call(_record, backend, key, new)
    response.headers.update(made.headers)
    return made.value


def _stored(backend: Backend, form: Form, caller: Caller) -> NewFile:
    file = form.file
    purpose, lifetime_s = _wanted(form.fields)
    if not form.file_bytes:
        raise ApiError("The file is empty.", param="file", code="empty_file")
    if purpose is Purpose.BATCH and form.file_bytes > (most := backend.settings.max_batch_file_bytes):
        message = f"A file of the purpose 'batch' may have {most} bytes, got {form.file_bytes}."
        raise ApiError(message, status=413, param="file", code="file_too_large")
    digest = backend.blobs.put_file(file)
    return NewFile(new_id("file-"), caller.tenant, purpose, form.filename, form.file_bytes, digest, lifetime_s)


def _record(backend: Backend, key: IdempotencyKey | None, new: NewFile) -> Made[FileObject]:
    return backend.once.do(
        key,
        lambda file_id: file_object(backend.files.get(file_id, new.tenant)),
        lambda: file_object(backend.files.insert(new, key)),
    )


def _wanted(fields: Mapping[str, str]) -> tuple[Purpose, int | None]:
    unknown = sorted(fields.keys() - set(FIELDS))
    if unknown:
        name = unknown[0][:100]
        raise ApiError(f"Unrecognized request argument supplied: {name!r}.", param=name, code="unknown_parameter")
    if "purpose" not in fields:
        message = "Missing required parameter: 'purpose'."
        raise ApiError(message, param="purpose", code="missing_required_parameter")
    given = fields["purpose"]
    if given in ELSEWHERE:
        raise Unsupported("purpose", f"{given!r} is for what this service does not do")
    if given not in UPLOADS:
        names = ", ".join(repr(purpose.value) for purpose in UPLOADS)
        message = f"Invalid value for 'purpose': must be one of {names}, got {given[:100]!r}."
        raise ApiError(message, param="purpose", code="invalid_value")
    purpose = Purpose(given)
    usual = BATCH_FILE_LIFETIME_S if purpose is Purpose.BATCH else None
    return purpose, _lifetime(fields) or usual


def _lifetime(fields: Mapping[str, str]) -> int | None:
    given = {
        name: fields[f"expires_after[{name}]"] for name in ("anchor", "seconds") if f"expires_after[{name}]" in fields
    }
    if not given:
        return None
    seconds = given.get("seconds", "")
    # What is no number of sane length stays what it is, for the refusal to show.
    return lifetime_of({**given, "seconds": int(seconds)} if re.fullmatch(r"[0-9]{1,12}", seconds) else given)


@router.get("", summary="List files, newest first")
async def list_files(
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
    order: Literal["asc", "desc"] = "desc",
    purpose: Purpose | None = None,
) -> FileList:
    """A page behind the file `after`."""
    backend = backend_of(request)
    known_only(request, "after", "limit", "order", "purpose")
    # One more than asked for tells whether there are more.
    wanted = FileFilter(purpose, after, limit + 1, order == "asc")
    page = await backend.threads.call(backend.files.page, tenant, wanted)
    return file_list(page[:limit], has_more=len(page) > limit)


@router.get("/{file_id}", summary="Read what is known of a file")
async def get_file(file_id: FileId, request: Request, tenant: Tenant) -> FileObject:
    backend = backend_of(request)
    return file_object(await backend.threads.call(backend.files.get, file_id, tenant))


@router.get("/{file_id}/content", summary="Download a file", response_class=Response, responses=BYTES)
async def download_file(file_id: FileId, request: Request, tenant: Tenant) -> Response:
    """The bytes as they were uploaded."""
    backend = backend_of(request)
    file = await backend.threads.call(backend.files.get, file_id, tenant)
    opened = await backend.file_threads.call(backend.blobs.open, file.digest)
    headers = {
        "content-type": "application/octet-stream",
        "content-length": str(file.bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
    }
    return EventStream(b"", _pieces(opened, file, backend.file_threads), headers)


async def _pieces(opened: BinaryIO, file: File, threads: Threads) -> AsyncGenerator[bytes, None]:
    left = file.bytes
    with opened:
        while left:
            piece = await threads.call(opened.read, min(PIECE_BYTES, left))
            if not piece:
                # The length is announced already: only a broken connection can tell.
                raise BlobsUnavailable(f"the blob of {file.id} is shorter than {file.bytes} bytes")
            left -= len(piece)
            yield piece


@router.delete("/{file_id}", summary="Delete a file")
async def delete_file(file_id: FileId, request: Request, tenant: Tenant) -> DeletedFile:
    """Jobs and batches that were made with it keep its bytes as long as they need them."""
    backend = backend_of(request)
    await backend.threads.call(backend.files.delete, file_id, tenant)
    return DeletedFile(id=file_id, object="file", deleted=True)
