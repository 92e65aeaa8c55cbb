"""A line becomes a job of the low-priority lane, or a refusal that stands in the batch's error file."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from api.auth import Caller
from api.batching.lines import Line
from api.body import parse_object
from api.errors import ApiError, as_api_error, error_body
from api.responses import order as responses
from api.schema import ChatBody, validate
from api.submission import Order, Submission
from jobs.batches import Batch, Endpoint, Refusal
from jobs.errors import Unavailable, VlmqError
from jobs.job import BatchLine, JobKind, NewJob, Origin, Priority

log = logging.getLogger(__name__)

ALONE = {
    "stream": "the answers of a batch come in its output file",
    "background": "every line of a batch runs in the background",
}


@dataclass(frozen=True, slots=True)
class LineIntake:
    submission: Submission

    def take(self, batch: Batch, line: Line) -> NewJob | Refusal:
        """Pictures of data: URLs are stored by that. Raises StoreUnavailable, BlobsUnavailable."""
        try:
            return self._job(batch, line)
        except Unavailable:
            raise
        except (ApiError, VlmqError) as exc:
            return _refused(line, exc)
        except Exception as exc:
            # A line is a request: a fault of ours at one must not keep its batch from all others.
            log.exception("line %d failed", line.number, extra={"action": "batch.line", "batch_id": batch.id})
            return _refused(line, exc)

    def _job(self, batch: Batch, line: Line) -> NewJob:
        job = self.submission.new_job(replace(self._order(batch, line), priority=Priority.BATCH))
        # The key that made the batch; what it may ask for was checked then.
        return replace(job, origin=replace(job.origin, key_id=batch.key_id))

    def _order(self, batch: Batch, line: Line) -> Order:
        fields = parse_object(line.body)
        _refuse_what_stands_alone(fields)
        place = BatchLine(batch.id, line.number)
        caller = Caller(batch.tenant)
        if batch.endpoint is Endpoint.RESPONSES:
            return responses.order_of(self.submission, fields, caller, place)
        body = validate(ChatBody, fields)
        origin = Origin(background=True, stored=body.store, batch=place)
        return self.submission.order_of(body, JobKind.CHAT_COMPLETION, caller, origin)


def _refused(line: Line, exc: Exception) -> Refusal:
    error = as_api_error(exc)
    return Refusal(line.number, error.status, error_body(error)["error"])


def _refuse_what_stands_alone(fields: dict[str, Any]) -> None:
    for name, why in ALONE.items():
        if fields.get(name):
            message = f"{name!r} is not allowed in a batch: {why}."
            raise ApiError(message, param=name, code="unsupported_parameter")
    if fields.get("priority") not in (None, "batch"):
        message = "'priority' of a batch's line must be 'batch', which it is anyway."
        raise ApiError(message, param="priority", code="invalid_value")
