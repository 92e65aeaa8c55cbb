"""What can go wrong in a worker, as errors that say what becomes of the job or of the worker.

WorkerError
├── RequestRefused       the request can never run: the job ends `failed` with `code`
│   ├── RowUnreadable    … because this version does not understand its row
│   └── MediaRefused     … because of one of its images or videos (worker.media.errors)
├── MediaUnavailable     bytes cannot be had now: the job is given back
├── Stopped              the job was stopped while it was being prepared
├── EngineUnavailable    the engine process cannot be started
└── BootRefused          the worker cannot start
"""

from jobs.job import JOB_UNREADABLE


class WorkerError(Exception):
    """Root of the tree."""


class RequestRefused(WorkerError):
    """The request can never run. `code` is OpenAI's where OpenAI has one; the message names the offending values."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class RowUnreadable(RequestRefused):
    """This version does not understand the job's row; `unreadable` says what of it.

    The job ends at once, as a dead letter, instead of being given back for a worker of a newer version: it would be the
    first in its line again and come back here until its attempts are spent, in front of everybody else's."""

    def __init__(self, job_id: str, unreadable: str) -> None:
        then = f"upgrade the workers, then give the job back: vlmq jobs requeue {job_id}"
        super().__init__(JOB_UNREADABLE, f"this worker's version cannot read what is stored ({unreadable}); {then}")


class MediaUnavailable(WorkerError):
    """A media host or the blob store does not answer now; another attempt may succeed. `code` is what the job ends
    with when none does."""

    def __init__(self, message: str, code: str = "failed_to_download_image") -> None:
        super().__init__(message)
        self.code = code


class Stopped(WorkerError):
    """The job's ending was decided from outside before it was prepared."""


class EngineUnavailable(WorkerError):
    """The engine process does not start; the message says what it said last."""


class BootRefused(WorkerError):
    """The worker cannot start; the message says why, for whoever started it."""
