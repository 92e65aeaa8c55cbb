"""API keys: who may come in, as which tenant. A secret is shown once; the database keeps its sha256.

sha256 is enough because a secret is 256 random bits: there is nothing to guess, so nothing to slow down.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, func, insert, select, update

from jobs.database import Database
from jobs.errors import KeyNotFound
from jobs.tables import api_keys

SECRET_PREFIX = "vlmq_sk_"
HINT_LENGTH = 4


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`hint` is the end of the secret, for people to tell keys apart."""

    id: str
    tenant: str
    name: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None


class ApiKeys(Protocol):
    """All raise StoreUnavailable."""

    def create(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        """The new key and its secret, which nobody can read again."""
        ...

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        """Of one tenant or of all, revoked ones too, oldest first."""
        ...

    def revoke(self, key_id: str) -> ApiKey:
        """Revoking again changes nothing. Raises KeyNotFound."""
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

    def create(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        secret = new_secret()
        row = insert(api_keys).values(
            id=f"key_{secrets.token_hex(8)}",
            tenant=tenant,
            name=name,
            digest=digest_of(secret),
            hint=secret[-HINT_LENGTH:],
        )
        made = self._database.statement(lambda on: on.execute(row.returning(*api_keys.c)).one())
        return _key_of(made), secret

    def list(self, tenant: str | None = None) -> list[ApiKey]:
        rows = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            rows = rows.where(api_keys.c.tenant == tenant)
        return [_key_of(row) for row in self._database.statement(lambda on: on.execute(rows).all())]

    def revoke(self, key_id: str) -> ApiKey:
        def work(on: Connection) -> Row[Any] | None:
            revoked_at = func.coalesce(api_keys.c.revoked_at, func.now())
            revoked = update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=revoked_at)
            return on.execute(revoked.returning(*api_keys.c)).one_or_none()

        row = self._database.statement(work)
        if row is None:
            raise KeyNotFound(key_id)
        return _key_of(row)

    def authenticate(self, secret: str) -> ApiKey | None:
        digest = digest_of(secret)
        rows = select(api_keys).where(api_keys.c.digest == digest, api_keys.c.revoked_at.is_(None))
        row = self._database.statement(lambda on: on.execute(rows).one_or_none())
        # The index finds by digest, so how long it takes tells nothing of the secret; compared again all the same.
        if row is None or not hmac.compare_digest(row.digest, digest):
            return None
        return _key_of(row)

    def any_keys(self) -> bool:
        return self._database.statement(lambda on: on.execute(select(select(api_keys.c.id).exists())).scalar_one())


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(row.id, row.tenant, row.name, row.hint, row.created_at, row.revoked_at)
