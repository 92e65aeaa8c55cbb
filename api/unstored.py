"""`store: false`: what a job was asked and answered goes as soon as the answer has been delivered.

Delivered is what was sent to its end, or whose client has gone. What this misses the maintenance process finds.
"""

import logging

from fastapi.responses import Response
from starlette.background import BackgroundTask

from api.backend import Backend
from jobs.errors import VlmqError
from jobs.job import Job

log = logging.getLogger(__name__)


def after_delivery(backend: Backend, job: Job, *, unstored: bool, key: object | None) -> BackgroundTask | None:
    """What a response runs behind its last byte. Under an idempotency key the client may come back for the answer."""
    return BackgroundTask(_purge, backend, job.id) if unstored and key is None else None


def with_afterwards(response: Response, afterwards: BackgroundTask | None) -> Response:
    response.background = afterwards
    return response


async def _purge(backend: Backend, job_id: str) -> None:
    try:
        await backend.threads.call(backend.settling.purge, job_id)
    except VlmqError as exc:
        log.warning("a job is purged later: %s", exc, extra={"action": "purge.later", "job_id": job_id})
