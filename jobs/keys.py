"""API keys: who may come in, as which tenant, and how much. A secret is shown once; the database keeps its sha256.

sha256 is enough because a secret is 256 random bits: there is nothing to guess, so nothing to slow down.
"""

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Executable, Row, and_, func, insert, or_, select, update

from jobs.database import Database
from jobs.errors import KeyNotFound, KeyRevoked
from jobs.limits import UNLIMITED, KeyLimits
from jobs.tables import api_keys

SECRET_PREFIX = "vlmq_sk_"
HINT_LENGTH = 4


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`hint` is the end of the secret, for people to tell keys apart. Until `old_secret_until` the secret before it
    opens the door too."""

    id: str
    tenant: str
    name: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None
    limits: KeyLimits = UNLIMITED
    old_secret_until: datetime | None = None


class ApiKeys(Protocol):
    """All raise StoreUnavailable."""

    def create(self, tenant: str, name: str, limits: KeyLimits = UNLIMITED) -> tuple[ApiKey, str]:
        """The new key and its secret, which nobody can read again."""
        ...

    def get(self, key_id: str) -> ApiKey:
        """Revoked or not. Raises KeyNotFound."""
        ...

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        """Of one tenant or of all, revoked ones too, oldest first."""
        ...

    def revoke(self, key_id: str) -> ApiKey:
        """Revoking again changes nothing. Raises KeyNotFound."""
        ...

    def limit(self, key_id: str, limits: KeyLimits) -> ApiKey:
        """Replaces all its limits. Raises KeyNotFound, KeyRevoked."""
        ...

    def rotate(self, key_id: str, overlap_s: float) -> tuple[ApiKey, str]:
        """The key with a new secret. The one that it had opens the door for `overlap_s` more; one before that no
        longer. Raises KeyNotFound, KeyRevoked."""
        ...

    def authenticate(self, secret: str) -> ApiKey | None:
        """The key with this secret unless it is revoked."""
        ...

    def any_keys(self) -> bool:
        """Whether a key was ever made, revoked or not: from then on nobody comes in without one."""
        ...


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class PostgresApiKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, tenant: str, name: str, limits: KeyLimits = UNLIMITED) -> tuple[ApiKey, str]:
        secret = new_secret()
        row = insert(api_keys).values(
            id=f"key_{secrets.token_hex(8)}",
            tenant=tenant,
            name=name,
            digest=digest_of(secret),
            hint=secret[-HINT_LENGTH:],
            **asdict(limits),
        )
        made = self._database.statement(lambda on: on.execute(row.returning(*api_keys.c)).one())
        return _key_of(made), secret

    def get(self, key_id: str) -> ApiKey:
        return _key_of(self._row(select(api_keys).where(api_keys.c.id == key_id), key_id))

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        rows = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            rows = rows.where(api_keys.c.tenant == tenant)
        return [_key_of(row) for row in self._database.statement(lambda on: on.execute(rows).all())]

    def revoke(self, key_id: str) -> ApiKey:
        revoked_at = func.coalesce(api_keys.c.revoked_at, func.now())
        revoked = update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=revoked_at)
        return _key_of(self._row(revoked.returning(*api_keys.c), key_id))

    def limit(self, key_id: str, limits: KeyLimits) -> ApiKey:
        return self._change(key_id, asdict(limits))

    def rotate(self, key_id: str, overlap_s: float) -> tuple[ApiKey, str]:
        secret = new_secret()
        values = {
            "digest": digest_of(secret),
            "hint": secret[-HINT_LENGTH:],
            "old_digest": api_keys.c.digest,
            "old_secret_until": func.now() + timedelta(seconds=overlap_s),
        }
        return self._change(key_id, values), secret

    def authenticate(self, secret: str) -> ApiKey | None:
        digest = digest_of(secret)
        current = api_keys.c.digest == digest
        old = and_(api_keys.c.old_digest == digest, api_keys.c.old_secret_until > func.now())
        rows = select(api_keys).where(or_(current, old), api_keys.c.revoked_at.is_(None))
        row = self._database.statement(lambda on: on.execute(rows).one_or_none())
        if row is None:
            return None
        # The index finds by digest, so how long it takes tells nothing of the secret; compared again all the same.
        same = hmac.compare_digest(row.digest, digest) | hmac.compare_digest(row.old_digest or b"", digest)
        return _key_of(row) if same else None

    def any_keys(self) -> bool:
        return self._database.statement(lambda on: on.execute(select(select(api_keys.c.id).exists())).scalar_one())

    def _change(self, key_id: str, values: dict[str, Any]) -> ApiKey:
        # Whether it is revoked is decided by the row that is changed: a revocation at the same time is not undone.
        changed = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(values)
        row = self._database.statement(lambda on: on.execute(changed.returning(*api_keys.c)).one_or_none())
        if row is None:
            raise KeyRevoked(self.get(key_id).id)
        return _key_of(row)

    def _row(self, statement: Executable, key_id: str) -> Row[Any]:
        row = self._database.statement(lambda on: on.execute(statement).one_or_none())
        if row is None:
            raise KeyNotFound(key_id)
        return row


def _key_of(row: Row[Any]) -> ApiKey:
    limits = KeyLimits(row.requests_per_minute, row.tokens_per_minute, row.queued_jobs, row.jobs_in_flight)
    return ApiKey(row.id, row.tenant, row.name, row.hint, row.created_at, row.revoked_at, limits, row.old_secret_until)
