"""Who asks: a Bearer key names the tenant. Without any key in the database only this machine may ask, as `default`."""

import hashlib
import hmac
import threading
import time
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request

from api.errors import ApiError
from api.from_here import check_from_here
from api.limits import Allowance
from jobs.job import DEFAULT_TENANT
from jobs.keys import ApiKey, ApiKeys

CACHED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `key` is None while the installation has no keys, or for a caller that is no request. `allowance` is
    one request's own; None where the key has no limits per minute, or where nothing counts."""

    tenant: str
    key: ApiKey | None = None
    allowance: Allowance | None = None

    @property
    def key_id(self) -> str | None:
        return None if self.key is None else self.key.id


ANYBODY = Caller(DEFAULT_TENANT)


class Auth:
    """Thread-safe. A key that was good is trusted for `cache_s`, so its revocation takes effect within that time;
    so does the first key's creation."""

    def __init__(self, keys: ApiKeys, *, open_without_keys: bool, cache_s: float) -> None:
        self._keys = keys
        self._open_without_keys = open_without_keys
        self._cache_s = cache_s
        self._lock = threading.Lock()
        self._good: dict[bytes, tuple[Caller, float]] = {}
        self._open_until = 0.0

    def cached(self, authorization: str | None) -> Caller | None:
        """The caller if it is known without asking the database."""
        now = time.monotonic()
        if now < self._open_until:
            return ANYBODY
        caller, until = self._good.get(_digest(authorization or ""), (ANYBODY, 0.0))
        return caller if now < until else None

    def caller(self, authorization: str | None) -> Caller:
        """Whoever an Authorization header names. Raises ApiError (401), StoreUnavailable."""
        until = time.monotonic() + self._cache_s
        scheme, _, secret = (authorization or "").partition(" ")
        key = self._keys.authenticate(secret.strip()) if scheme.lower() == "bearer" and secret.strip() else None
        if key is not None:
            with self._lock:
                if len(self._good) >= CACHED_KEYS:
                    self._good.clear()
                self._good[_digest(authorization or "")] = (Caller(key.tenant, key), until)
            return Caller(key.tenant, key)
        there_are_keys = self._keys.any_keys()
        if not there_are_keys and self._open_without_keys:
            # A client that must send some key (OpenAI's does) may send any while there are none.
            self._open_until = until
            return ANYBODY
        if authorization is None:
            raise _unauthorized("No API key was given: send the header 'Authorization: Bearer …'.")
        raise _unauthorized("The API key is not known or has been revoked.")


def _digest(authorization: str) -> bytes:
    return hashlib.sha256(authorization.encode()).digest()


def _unauthorized(message: str) -> ApiError:
    return ApiError(message, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def check_metrics_token(authorization: str | None, token: str) -> None:
    """The numbers of all tenants together belong to none of them: who reads them has a token of its own. Raises
    ApiError (401) unless there is none, or it is this."""
    if not token:
        return
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise _unauthorized("/metrics asks for its own token: 'Authorization: Bearer …' (VLMQ_API_METRICS_TOKEN).")


async def caller_of_request(request: Request) -> Caller:
    backend = request.app.state.backend
    authorization = request.headers.get("authorization")
    known: Caller | None = backend.auth.cached(authorization)
    caller = known if known is not None else await backend.threads.call(backend.auth.caller, authorization)
    if caller.key is None:
        check_from_here(request.headers)
    return caller


KnownCaller = Annotated[Caller, Depends(caller_of_request)]
"""For routes that create something else than jobs."""


async def asker_of_request(request: Request) -> Caller:
    """The caller, refused at once while its key has nothing left of this minute: before a long body is read."""
    caller = await caller_of_request(request)
    if caller.key is None or not caller.key.limits.per_minute:
        return caller
    backend = request.app.state.backend
    spent = await backend.threads.call(backend.usage.spent, caller.key.id, caller.key.limits)
    # The edge of the application puts it into the headers of whatever the answer is.
    request.state.allowance = Allowance(caller.key, spent)
    if "idempotency-key" not in request.headers:
        # With one it may ask for what is there already, which costs nothing.
        request.state.allowance.check()
    return replace(caller, allowance=request.state.allowance)


Asker = Annotated[Caller, Depends(asker_of_request)]
"""For routes that create jobs."""


async def tenant_of_request(caller: KnownCaller) -> str:
    return caller.tenant


Tenant = Annotated[str, Depends(tenant_of_request)]
"""For routes that only look at or change what the tenant has."""
