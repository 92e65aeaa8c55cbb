"""Idempotency keys: which request of a tenant made what, so that the same request again makes nothing more.

Knows no HTTP: a key and a fingerprint of the request come in, the id of what was made comes out. Whoever makes
something calls `claim` in the transaction that makes it.
"""

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, text

from jobs.database import Database
from jobs.errors import IdempotencyKeyReused, IdempotencyKeyTaken

KEPT_S = 24 * 3600.0
"""How long a key is remembered. Afterwards it is new again."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's word for one request: `key` is the tenant's own, `fingerprint` tells the request from any other."""

    tenant: str
    key: str
    fingerprint: bytes


class IdempotencyKeys(Protocol):
    """All raise StoreUnavailable. Keys older than KEPT_S are as if they had never been."""

    def find(self, key: IdempotencyKey) -> str | None:
        """The id of what was made under the key, empty when that is deleted. Raises IdempotencyKeyReused
        when another request made it."""
        ...

    def expire(self, limit: int = 5000) -> int:
        """Forgets keys whose time is over, and returns how many."""
        ...


# Whoever comes second waits here for the transaction of the first, and then finds the key taken. A key that is past its
# time is taken over.
_CLAIM = text("""
    INSERT INTO idempotency_keys AS known (tenant, key, fingerprint, made)
    VALUES (:tenant, :key, :fingerprint, :made)
    ON CONFLICT (tenant, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, made = excluded.made, claimed_at = excluded.claimed_at
        WHERE known.claimed_at <= now() - make_interval(secs => :kept_s)
    RETURNING true""")

_FIND = text("""
    SELECT fingerprint, made FROM idempotency_keys
    WHERE tenant = :tenant AND key = :key AND claimed_at > now() - make_interval(secs => :kept_s)""")

_EXPIRE = text("""
    DELETE FROM idempotency_keys WHERE (tenant, key) IN (
        SELECT tenant, key FROM idempotency_keys
        WHERE claimed_at <= now() - make_interval(secs => :kept_s)
        ORDER BY claimed_at LIMIT :limit FOR UPDATE SKIP LOCKED)""")


def claim(connection: Connection, key: IdempotencyKey, made: str) -> None:
    """Remembers what is being made in this transaction. Of several at once one gets the key; for the others it
    raises IdempotencyKeyTaken, and their transactions must end without having made anything."""
    values = {"tenant": key.tenant, "key": key.key, "fingerprint": key.fingerprint, "made": made, "kept_s": KEPT_S}
    if connection.execute(_CLAIM, values).one_or_none() is None:
        raise IdempotencyKeyTaken(key.key)


class PostgresIdempotencyKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: IdempotencyKey) -> str | None:
        values = {"tenant": key.tenant, "key": key.key, "kept_s": KEPT_S}
        row = self._database.statement(lambda on: on.execute(_FIND, values).one_or_none())
        if row is None:
            return None
        if row.fingerprint != key.fingerprint:
            raise IdempotencyKeyReused(key.key)
        return str(row.made)

    def expire(self, limit: int = 5000) -> int:
        values = {"limit": limit, "kept_s": KEPT_S}
        return self._database.statement(lambda on: on.execute(_EXPIRE, values).rowcount)
