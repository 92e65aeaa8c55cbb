"""`Idempotency-Key`: the same request again is answered with what the first one made.

A door reads its key with `key_of`, and makes what it makes through `Once.do`. Knows no job: what was made under a key
is an id, and the door reads it again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request

from api.auth import Caller
from api.errors import NO_RETRY, ApiError, as_api_error
from jobs.errors import IdempotencyKeyTaken, JobPurged, VlmqError
from jobs.idempotency import IdempotencyKey, IdempotencyKeys
from jobs.job import Job

HEADER = "Idempotency-Key"
REPLAYED = {"idempotent-replayed": "true"}
MAX_CHARS = 255

T = TypeVar("T")


def key_of(request: Request, caller: Caller, *content: bytes) -> IdempotencyKey | None:
    """The key that the client gave, if it gave one. `content` is the body as it came, or of a form its parts in a
    settled order. Raises ApiError (400) for what is no key."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= MAX_CHARS or not all(" " <= char <= "~" for char in key):
        what = "several" if len(given) > 1 else f"{key[:60]!r} of {len(key)} characters"
        message = f"Invalid value for '{HEADER}': must be 1 to {MAX_CHARS} printable ASCII characters, got {what}."
        raise ApiError(message, param=HEADER, code="invalid_value")
    return IdempotencyKey(caller.tenant, key, _fingerprint(request.method, request.url.path, *content))


def _fingerprint(method: str, path: str, *content: bytes) -> bytes:
    whole = hashlib.sha256()
    for part in (method.encode(), path.encode(), *content):
        # With its length before it, no part can be taken for the end of another.
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.digest()


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """`replayed`: it was there already."""

    value: T
    replayed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return dict(REPLAYED) if self.replayed else {}


@dataclass(frozen=True, slots=True)
class Once:
    """Synchronous, like the ports."""

    keys: IdempotencyKeys

    def do(self, key: IdempotencyKey | None, find: Callable[[str], T], make: Callable[[], T]) -> Made[T]:
        """What `make` makes, recording it under the key; or what `find` reads when the key stands for an id already.
        Raises IdempotencyKeyReused (422), ApiError when what was made is deleted (404) or purged (410), and what the
        two raise: a `make` that raises has recorded nothing, and the key is free for another try."""
        if key is None:
            return Made(make())
        if (made := self.keys.find(key)) is not None:
            return self._replayed(key, made, find)
        try:
            return Made(make())
        except IdempotencyKeyTaken:
            if (made := self.keys.find(key)) is None:
                raise
            return self._replayed(key, made, find)

    def _replayed(self, key: IdempotencyKey, made: str, find: Callable[[str], T]) -> Made[T]:
        if not made:
            raise _deleted(key)
        try:
            return Made(find(made), replayed=True)
        except JobPurged as exc:
            message = f"{exc}, so the {HEADER} {key.key!r} has no answer left; a new request needs a new key."
            raise ApiError(message, status=410, param=HEADER, code="idempotent_result_purged") from exc
        except (VlmqError, ApiError) as exc:
            if as_api_error(exc).status != 404:
                raise
            raise _deleted(key) from exc


def _deleted(key: IdempotencyKey) -> ApiError:
    # Made again it would be work that was done once and thrown away on purpose.
    message = f"What the {HEADER} {key.key!r} made is deleted; a new request needs a new key."
    return ApiError(message, status=404, param=HEADER, code="idempotent_result_deleted")


def still_running(job: Job) -> ApiError:
    """The answer to a repeated request that wants the whole answer of a job that has none yet."""
    message = f"The request with this {HEADER} is still being worked on, as job {job.id}: ask again when it has ended."
    headers = {**NO_RETRY, "x-vlmq-job-id": job.id}
    return ApiError(message, status=409, param=HEADER, code="idempotency_key_in_use", headers=headers)
