"""The files of a batch that is over: one line for each line of its input, an answer or an error. Renders and counts."""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from api.batching.lines import RawLine, custom_id_of, raw_lines
from api.completion import completion_object
from api.errors import error_body, of_job
from api.responses.object import response_object
from jobs.batch_store import PostgresBatchStore
from jobs.batches import Batch, BatchUsage, Counts, Endpoint, Refusal
from jobs.files import NewFile, Purpose
from jobs.job import Job, JobState, Usage
from jobs.ports import Blobs

LINES_AT_ONCE = 100

EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = ("batch_cancelled", "This request was not executed because the batch was cancelled.")
JOB_CANCELLED = ("job_cancelled", "The job of this request was cancelled by itself.")
JOB_DELETED = ("job_deleted", "The job of this request is gone.")


class NotOver(Exception):
    """A job of the batch has not ended: it was given another life."""


@dataclass(frozen=True, slots=True)
class Written:
    """`expired`: at least one line could not run in time."""

    counts: Counts
    usage: BatchUsage
    output: NewFile | None
    errors: NewFile | None
    expired: bool


class Output:
    """Writes the files of one batch. Both are made on the disk before they become blobs."""

    def __init__(self, batch: Batch, output: BinaryIO, errors: BinaryIO) -> None:
        self._batch = batch
        self._output = output
        self._errors = errors
        self._counts = Counts(0, 0, 0)
        self._usage = BatchUsage()
        self._expired = False

    def add(self, line: int, custom_id: str, result: Job | Refusal | None) -> None:
        """Raises NotOver."""
        counts = replace(self._counts, total=self._counts.total + 1)
        head = {"id": _request_id(self._batch.id, line), "custom_id": custom_id}
        if isinstance(result, Job) and result.state in (JobState.COMPLETED, JobState.INCOMPLETE):
            counts = replace(counts, completed=counts.completed + 1)
            self._usage = _sum(self._usage, result.usage)
            body = response_object(result) if self._batch.endpoint is Endpoint.RESPONSES else completion_object(result)
            self._write(self._output, head, _response(200, result.id, body), None)
        else:
            response, error, failed = self._failure(head["id"], result)
            counts = replace(counts, failed=counts.failed + failed)
            self._write(self._errors, head, response, error)
        self._counts = counts

    def _failure(
        self, request_id: str, result: Job | Refusal | None
    ) -> tuple[dict[str, Any] | None, tuple[str, str] | None, bool]:
        """The response or the error, and whether it counts as failed: what was stopped with its batch does not."""
        if isinstance(result, Refusal):
            return _response(result.status_code, request_id, {"error": dict(result.error)}), None, True
        if result is not None and not result.state.terminal:
            raise NotOver
        if result is not None and result.error is not None:
            error = of_job(result.error, result.id)
            return _response(error.status, result.id, error_body(error)), None, True
        stopped_at = self._batch.cancelling_at or self._batch.expires_at
        done_at = None if result is None else result.timeline.done_at
        if done_at is not None and done_at < stopped_at:
            return None, JOB_CANCELLED, True
        if self._batch.cancelling_at is not None:
            return None, CANCELLED, False
        if not self._batch.overdue:
            return None, JOB_DELETED, True
        self._expired = True
        return None, EXPIRED, False

    @staticmethod
    def _write(
        file: BinaryIO, head: dict[str, str], response: dict[str, Any] | None, error: tuple[str, str] | None
    ) -> None:
        told = None if error is None else {"code": error[0], "message": error[1]}
        file.write(msgspec.json.encode({**head, "response": response, "error": told}) + b"\n")

    def close(self, blobs: Blobs) -> Written:
        """Raises BlobsUnavailable."""
        output = _stored(self._batch, self._output, "output", blobs)
        errors = _stored(self._batch, self._errors, "error", blobs)
        return Written(self._counts, self._usage, output, errors, self._expired)


def write(batch: Batch, store: PostgresBatchStore, blobs: Blobs, folder: str, max_line_bytes: int) -> Written:
    """Raises NotOver, BlobNotFound, BlobsUnavailable, StoreUnavailable, OSError when the disk is full."""
    place = folder or None
    with (
        blobs.open(batch.digest) as file,
        tempfile.TemporaryFile(dir=place) as output,
        tempfile.TemporaryFile(dir=place) as errors,
    ):
        made = Output(batch, output, errors)
        for lines in _some(raw_lines(file, 1, 0, max_line_bytes)):
            first, last = lines[0][0], lines[-1][0]
            known: dict[int, Job | Refusal] = {
                **store.refusals_of(batch.id, first, last),
                **store.jobs_of(batch.id, first, last),
            }
            for number, custom_id in lines:
                made.add(number, custom_id, known.get(number))
        return made.close(blobs)


def _some(lines: Iterator[RawLine]) -> Iterator[list[tuple[int, str]]]:
    # Only numbers and names are kept: bodies may be long.
    named = ((raw.number, custom_id_of(raw)) for raw in lines)
    while some := list(islice(named, LINES_AT_ONCE)):
        yield some


def _stored(batch: Batch, file: BinaryIO, kind: str, blobs: Blobs) -> NewFile | None:
    if not (size := file.tell()):
        return None
    return NewFile(
        # Of the batch's id, so that whoever writes it again writes the same file.
        id=f"file-{batch.id.removeprefix('batch_')}_{kind}",
        tenant=batch.tenant,
        purpose=Purpose.BATCH_OUTPUT,
        filename=f"{batch.id}_{kind}.jsonl",
        bytes=size,
        digest=blobs.put_file(file),
        lifetime_s=batch.output_lifetime_s,
    )


def _response(status_code: int, request_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"status_code": status_code, "request_id": request_id, "body": body}


def _request_id(batch_id: str, line: int) -> str:
    return f"batch_req_{hashlib.sha256(f'{batch_id}:{line}'.encode()).hexdigest()[:32]}"


def _sum(usage: BatchUsage, more: Usage | None) -> BatchUsage:
    if more is None:
        return usage
    return BatchUsage(
        usage.input_tokens + more.prompt_tokens,
        usage.cached_tokens + more.cached_tokens,
        usage.output_tokens + more.completion_tokens,
    )
