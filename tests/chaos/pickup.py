"""Jobs whose worker is being struck, until each goes on: it has ended, or a later attempt has published a token.

A claim alone is not enough: what a reader waits for is the next token.
"""

import contextlib
from typing import Any

import redis

from jobs.event_log import stream_key
from jobs.settings import ServiceSettings
from tests.chaos.ledger import Ledger


class Pickup:
    """`held`: the jobs' ids, each with the attempt that loses it."""

    def __init__(self, held: dict[str, int], ledger: Ledger, settings: ServiceSettings) -> None:
        self.held = held
        self._ledger = ledger
        self._settings = settings
        self._waiting = dict(held)
        self._length_when_claimed: dict[str, int] = {}

    def done(self) -> bool:
        if not self._waiting:
            return True
        rows = self._ledger.patiently("SELECT id, attempt, state FROM jobs WHERE id = ANY(%s)", list(self._waiting))
        still = {row["id"]: row for row in rows if row["state"] in ("queued", "in_progress")}
        self._waiting = {job_id: attempt for job_id, attempt in self._waiting.items() if job_id in still}
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self._settings.redis_url) as client:
            for job_id, attempt in list(self._waiting.items()):
                row = still[job_id]
                if row["state"] == "in_progress" and row["attempt"] > attempt and self._has_grown(client, job_id):
                    del self._waiting[job_id]
        return not self._waiting

    def _has_grown(self, client: "redis.Redis", job_id: str) -> bool:
        """Since it was first seen with its new worker."""
        last: Any = client.xrevrange(stream_key(self._settings.redis_prefix, job_id), count=1)
        length = int(last[0][0].partition(b"-")[0]) if last else 0
        return length > self._length_when_claimed.setdefault(job_id, length)
