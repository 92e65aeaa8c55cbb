"""API keys in memory. Passes the contract of the real ones."""

import builtins
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from jobs.errors import KeyNotFound, KeyRevoked
from jobs.keys import HINT_LENGTH, ApiKey, new_secret
from jobs.limits import UNLIMITED, KeyLimits


@dataclass
class _Kept:
    key: ApiKey
    secret: str
    old_secret: str | None = None


class FakeApiKeys:
    def __init__(self) -> None:
        self._keys: dict[str, _Kept] = {}

    def create(self, tenant: str, name: str, limits: KeyLimits = UNLIMITED) -> tuple[ApiKey, str]:
        secret = new_secret()
        hint, now = secret[-HINT_LENGTH:], datetime.now(UTC)
        key = ApiKey(f"key_{len(self._keys):016x}", tenant, name, hint, now, limits=limits)
        self._keys[key.id] = _Kept(key, secret)
        return key, secret

    def get(self, key_id: str) -> ApiKey:
        return self._kept(key_id).key

    def list(self, tenant: str | None = None) -> builtins.list[ApiKey]:
        return [kept.key for kept in self._keys.values() if tenant in (None, kept.key.tenant)]

    def revoke(self, key_id: str) -> ApiKey:
        kept = self._kept(key_id)
        kept.key = replace(kept.key, revoked_at=kept.key.revoked_at or datetime.now(UTC))
        return kept.key

    def limit(self, key_id: str, limits: KeyLimits) -> ApiKey:
        kept = self._valid(key_id)
        kept.key = replace(kept.key, limits=limits)
        return kept.key

    def rotate(self, key_id: str, overlap_s: float) -> tuple[ApiKey, str]:
        kept = self._valid(key_id)
        kept.old_secret, kept.secret = kept.secret, new_secret()
        until = datetime.now(UTC) + timedelta(seconds=overlap_s)
        kept.key = replace(kept.key, hint=kept.secret[-HINT_LENGTH:], old_secret_until=until)
        return kept.key, kept.secret

    def authenticate(self, secret: str) -> ApiKey | None:
        for kept in self._keys.values():
            until = kept.key.old_secret_until
            old = until is not None and until > datetime.now(UTC) and kept.old_secret == secret
            if kept.key.revoked_at is None and (kept.secret == secret or old):
                return kept.key
        return None

    def any_keys(self) -> bool:
        return bool(self._keys)

    def _kept(self, key_id: str) -> _Kept:
        if key_id not in self._keys:
            raise KeyNotFound(key_id)
        return self._keys[key_id]

    def _valid(self, key_id: str) -> _Kept:
        kept = self._kept(key_id)
        if kept.key.revoked_at is not None:
            raise KeyRevoked(key_id)
        return kept
