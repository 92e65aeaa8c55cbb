"""The errors of a job's life. Drivers' errors become these at the adapters.

VlmqError
├── JobNotFound          no such job, or another tenant's
├── JobExists            a new job's id is not new
├── StaleAttempt         a write by an attempt that is no longer current
├── IllegalTransition    the transition table has no such arrow
├── JobPurged            what the job was asked and answered is not kept any more
├── JobUnreadable        this version does not understand what the job was asked
├── JobNotFinished       asked for something that only a terminal job allows
├── LogGap               an append that does not continue the event log
├── BlobNotFound         no bytes under this digest
├── FileNotFound         no such file, or another tenant's, or past its time
├── BatchNotFound        no such batch, or another tenant's
├── BatchNotActive       a batch that has ended cannot be cancelled
├── JobOfBatch           a batch that has not ended needs the job
├── KeyNotFound          no API key has this id
├── WebhookEndpointNotFound  no such endpoint, or another tenant's
├── WebhookEndpointDisabled  it is switched off, and this needs it on
├── WebhookDeliveryNotFound  no such delivery, or another tenant's
├── TooManyWebhookEndpoints  the tenant has as many as it may
├── KeyRevoked           the API key is revoked for good
├── LimitReached         an API key has used what it may
├── IdempotencyKeyTaken  another request got the key at the same time
├── IdempotencyKeyReused the key stands for another request
└── Unavailable          a backing service does not answer; try again
    ├── StoreUnavailable
    ├── StreamUnavailable
    │   └── LogRefused   Redis answers, but not for this one log
    └── BlobsUnavailable
"""


class VlmqError(Exception):
    """Root of the tree."""


class JobNotFound(VlmqError):
    """No job has this id for this tenant."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job has the id {job_id!r}")
        self.job_id = job_id


class JobExists(VlmqError):
    """A job with this id is recorded already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"a job with the id {job_id!r} exists already")
        self.job_id = job_id


class StaleAttempt(VlmqError):
    """The attempt that writes is not the job's current one: it lost its lease, or the job has ended."""

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} of job {job_id!r} is no longer current")
        self.job_id = job_id
        self.attempt = attempt


class IllegalTransition(VlmqError):
    """The transition table has no arrow between these states."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__(f"a job cannot go from {source!r} to {target!r}")


class JobNotFinished(VlmqError):
    """The job must be terminal for this."""

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} is still {state!r}; cancel it first or wait for its end")
        self.job_id = job_id


class JobPurged(VlmqError):
    """The job's row is there, its content is gone."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"what job {job_id!r} was asked and what it answered are not kept any more")
        self.job_id = job_id


class JobUnreadable(VlmqError):
    """The job's row was written by a newer version, or damaged; `fault` says what of it."""

    def __init__(self, job_id: str, fault: str) -> None:
        super().__init__(f"this version of the server cannot read what job {job_id!r} was asked ({fault})")
        self.job_id = job_id


class LogGap(VlmqError):
    """An append starts after the log's end; `next_sequence` is where the log goes on."""

    def __init__(self, job_id: str, next_sequence: int) -> None:
        super().__init__(f"the event log of job {job_id!r} goes on at sequence {next_sequence}")
        self.job_id = job_id
        self.next_sequence = next_sequence


class BlobNotFound(VlmqError):
    """No bytes are stored under this digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"no blob has the digest {digest!r}")
        self.digest = digest


class FileNotFound(VlmqError):
    """No file has this id for this tenant, or its time is over."""

    def __init__(self, file_id: str) -> None:
        super().__init__(f"no file has the id {file_id!r}")
        self.file_id = file_id


class BatchNotFound(VlmqError):
    """No batch has this id for this tenant."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"no batch has the id {batch_id!r}")
        self.batch_id = batch_id


class BatchNotActive(VlmqError):
    """The batch has ended."""

    def __init__(self, batch_id: str, status: str) -> None:
        super().__init__(f"batch {batch_id!r} cannot be cancelled: it is {status!r}")
        self.batch_id = batch_id


class JobOfBatch(VlmqError):
    """The job's answer is still to go into the files of its batch."""

    def __init__(self, job_id: str, batch_id: str) -> None:
        super().__init__(f"job {job_id!r} belongs to the batch {batch_id!r}, which has not ended")
        self.job_id = job_id


class KeyNotFound(VlmqError):
    """No API key has this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no API key has the id {key_id!r}")
        self.key_id = key_id


class KeyRevoked(VlmqError):
    """The key opens nothing any more, so there is nothing to change about it."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the API key {key_id!r} is revoked; make a new one")
        self.key_id = key_id


class LimitReached(VlmqError):
    """One more job is more than its API key may have now: `needed` of what `limit` names does not fit into `allowed`.
    Waiting helps after `wait_s`, or when a job has moved on (`until_job_moves`), or never."""

    def __init__(
        self, limit: str, allowed: int, needed: int, wait_s: float | None = None, until_job_moves: bool = False
    ) -> None:
        super().__init__(f"the API key's limit {limit} = {allowed} leaves no room for {needed} more")
        self.limit = limit
        self.allowed = allowed
        self.needed = needed
        self.wait_s = wait_s
        self.until_job_moves = until_job_moves


class WebhookEndpointNotFound(VlmqError):
    """No webhook endpoint has this id for this tenant."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"no webhook endpoint has the id {endpoint_id!r}")


class WebhookEndpointDisabled(VlmqError):
    """Nothing is sent to the endpoint until it is switched on."""

    def __init__(self, endpoint_id: str, because: str) -> None:
        super().__init__(f"webhook endpoint {endpoint_id!r} is disabled ({because}); enable it first")


class WebhookDeliveryNotFound(VlmqError):
    """No webhook delivery has this id for this tenant."""

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"no webhook delivery has the id {delivery_id!r}")


class TooManyWebhookEndpoints(VlmqError):
    """A tenant has as many endpoints as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"there are {most} webhook endpoints already, the most that a tenant may have")


class IdempotencyKeyTaken(VlmqError):
    """Somebody else made something under the key since it was looked for: look again."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the idempotency key {key!r} was taken meanwhile")


class IdempotencyKeyReused(VlmqError):
    """The key stands for a request with another content."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the Idempotency-Key {key!r} was used for another request; a new request needs a new key")


class Unavailable(VlmqError):
    """A backing service does not answer now."""


class StoreUnavailable(Unavailable):
    """PostgreSQL does not answer."""


class StreamUnavailable(Unavailable):
    """Redis does not answer."""


class LogRefused(StreamUnavailable):
    """Something is wrong with one job's log, or with what was to be written to it: the others go on meanwhile."""


class BlobsUnavailable(Unavailable):
    """The blob store does not answer or is full."""
