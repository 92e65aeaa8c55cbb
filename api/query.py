"""Parameters of the URL that need more than a type."""

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Request

from api.errors import ApiError
from jobs.errors import BatchNotFound, FileNotFound, JobNotFound

METADATA = re.compile(r"metadata\[(.+)\]", re.DOTALL)
LARGEST = 2**53
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _job_id(job_id: str) -> str:
    """What cannot be an id is not looked for: PostgreSQL takes no U+0000. Raises JobNotFound."""
    if JOB_ID.fullmatch(job_id) is None:
        raise JobNotFound(job_id[:100])
    return job_id


JobId = Annotated[str, Depends(_job_id)]


def _file_id(file_id: str) -> str:
    if JOB_ID.fullmatch(file_id) is None:
        raise FileNotFound(file_id[:100])
    return file_id


FileId = Annotated[str, Depends(_file_id)]


def _batch_id(batch_id: str) -> str:
    if JOB_ID.fullmatch(batch_id) is None:
        raise BatchNotFound(batch_id[:100])
    return batch_id


BatchId = Annotated[str, Depends(_batch_id)]


def known_only(request: Request, *names: str, metadata: bool = False, many: Collection[str] = ()) -> None:
    """Raises ApiError for a parameter that the route does not know, that is given twice, or that PostgreSQL could
    not even compare. `metadata`: every `metadata[key]` is known too. Those of `many` may come again and again."""
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        if not (name in names or name in many or (metadata and METADATA.fullmatch(name))):
            raise ApiError(f"Unknown query parameter: {name[:100]!r}.", param=name[:100], code="unknown_parameter")
        if name in seen and name not in many:
            raise ApiError(f"Query parameter given twice: {name[:100]!r}.", param=name[:100], code="invalid_value")
        if "\x00" in name + value:
            message = f"Invalid value for {name[:100]!r}: must not contain the character U+0000."
            raise ApiError(message, param=name[:100], code="invalid_value")
        seen.add(name)


def metadata_filter(request: Request) -> dict[str, str]:
    """The pairs of `metadata[key]=value`."""
    pairs = ((METADATA.fullmatch(name), value) for name, value in request.query_params.multi_items())
    return {match[1]: value for match, value in pairs if match is not None}


def resume_point(request: Request, starting_after: int | None) -> int:
    """The sequence number that the client has seen last, −1 for none. `starting_after` wins over `Last-Event-ID`,
    which a browser sends by itself. Raises ApiError."""
    if starting_after is not None:
        return _bounded(starting_after, "starting_after")
    header = request.headers.get("last-event-id", "")
    if not header:
        return -1
    if not (header.isascii() and header.isdigit() and len(header) < 20):
        message = f"Invalid value for 'Last-Event-ID': must be a sequence number, got {header[:40]!r}."
        raise ApiError(message, param="Last-Event-ID", code="invalid_value")
    return _bounded(int(header), "Last-Event-ID")


def _bounded(sequence: int, name: str) -> int:
    if sequence >= LARGEST:
        raise ApiError(f"Invalid value for {name!r}: {sequence} is too large.", param=name, code="invalid_value")
    return sequence
