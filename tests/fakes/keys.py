"""API keys in memory. Passes the contract of the real ones."""

import builtins
from dataclasses import replace
from datetime import UTC, datetime

from jobs.errors import KeyNotFound
from jobs.keys import HINT_LENGTH, ApiKey, new_secret


class FakeApiKeys:
    def __init__(self) -> None:
        self._keys: dict[str, tuple[ApiKey, str]] = {}

    def create(self, tenant: str, name: str) -> tuple[ApiKey, str]:
        secret = new_secret()
        key = ApiKey(f"key_{len(self._keys):016x}", tenant, name, secret[-HINT_LENGTH:], datetime.now(UTC))
        self._keys[key.id] = (key, secret)
        return key, secret

    def list(self, tenant: str | None = None) -> builtins.list[ApiKey]:
        return [key for key, _ in self._keys.values() if tenant in (None, key.tenant)]

    def revoke(self, key_id: str) -> ApiKey:
        if key_id not in self._keys:
            raise KeyNotFound(key_id)
        key, secret = self._keys[key_id]
        key = replace(key, revoked_at=key.revoked_at or datetime.now(UTC))
        self._keys[key_id] = (key, secret)
        return key

    def authenticate(self, secret: str) -> ApiKey | None:
        found = [key for key, known in self._keys.values() if known == secret and key.revoked_at is None]
        return found[0] if found else None

    def any_keys(self) -> bool:
        return bool(self._keys)
