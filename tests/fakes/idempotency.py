"""Idempotency keys in memory, with a clock to turn. Passes the contract of the real ones."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from jobs.errors import IdempotencyKeyReused, IdempotencyKeyTaken
from jobs.idempotency import KEPT_S, IdempotencyKey


class FakeIdempotencyKeys:
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[bytes, str, datetime]] = {}

    def claim(self, key: IdempotencyKey, made: str) -> None:
        with self._lock:
            if self._fresh(key) is not None:
                raise IdempotencyKeyTaken(key.key)
            self._known[key.tenant, key.key] = (key.fingerprint, made, self._now())

    def find(self, key: IdempotencyKey) -> str | None:
        with self._lock:
            known = self._fresh(key)
        if known is None:
            return None
        if known[0] != key.fingerprint:
            raise IdempotencyKeyReused(key.key)
        return known[1]

    def forget(self, made: str) -> None:
        with self._lock:
            for name, (fingerprint, known, at) in self._known.items():
                if known == made:
                    self._known[name] = (fingerprint, "", at)

    def expire(self, limit: int = 5000) -> int:
        with self._lock:
            old = [name for name, (_, _, at) in self._known.items() if self._is_old(at)][:limit]
            for name in old:
                del self._known[name]
            return len(old)

    def _fresh(self, key: IdempotencyKey) -> tuple[bytes, str, datetime] | None:
        known = self._known.get((key.tenant, key.key))
        return None if known is None or self._is_old(known[2]) else known

    def _is_old(self, at: datetime) -> bool:
        return at <= self._now() - timedelta(seconds=KEPT_S)
