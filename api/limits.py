"""What a request is told of its key's limits: `x-ratelimit-*` on every answer, and a 429 that says what to wait for.

Counts nothing itself: the store does, with the job.
"""

import math
from collections.abc import Mapping

from api.errors import NO_RETRY, ApiError
from api.retry_after import retry_after_s
from jobs.errors import LimitReached
from jobs.keys import ApiKey
from jobs.limits import KeyLimits, Limit, Spent, check_minute, wait_s

JOB_MOVES_S = 5.0
"""When a limit counts jobs and nobody knows how long they take, it is worth asking again after a few seconds."""

_SAID: dict[str, str] = {
    Limit.REQUESTS: "may make {allowed} requests per minute, and has none left",
    Limit.TOKENS: "may use {allowed} tokens per minute, and this request is estimated to need {needed}",
    Limit.QUEUED: "may have {allowed} jobs waiting, and has them",
    Limit.IN_FLIGHT: "may have {allowed} jobs that have not ended, and has them",
}


class Allowance:
    """What the key of one request may still use of this minute: as it was when the request came, less what the request
    has used."""

    def __init__(self, key: ApiKey, spent: Spent) -> None:
        self._key = key
        self._spent = spent

    @property
    def limits(self) -> KeyLimits:
        return self._key.limits

    def check(self) -> None:
        """Raises ApiError (429) when not even the smallest request fits."""
        try:
            check_minute(self.limits, self._spent, cost=1)
        except LimitReached as exc:
            raise refusal(exc, self._key) from exc

    def use(self, tokens: int) -> None:
        """One request of so many tokens was charged."""
        self._spent = self._spent.plus(1, tokens)

    def headers(self) -> dict[str, str]:
        """OpenAI's `x-ratelimit-*`, for those that the key has. `reset` is how long until nothing is spent."""
        told: dict[str, str] = {}
        for what, limit, spent in (
            ("requests", self.limits.requests_per_minute, self._spent.requests),
            ("tokens", self.limits.tokens_per_minute, self._spent.tokens),
        ):
            if limit is not None:
                told[f"x-ratelimit-limit-{what}"] = str(limit)
                told[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(limit - spent + 1e-6)))
                told[f"x-ratelimit-reset-{what}"] = duration(wait_s(spent, limit, limit))
        return told


def refusal(reached: LimitReached, key: ApiKey, moves_s: float | None = None) -> ApiError:
    """The 429 for a request that a limit of its key keeps out. `moves_s`: where the limit counts jobs, in how many
    seconds one of them is expected to make room; None: nobody knows."""
    said = _SAID[reached.limit].format(allowed=reached.allowed, needed=reached.needed)
    retry, headers = _when(reached, moves_s)
    return ApiError(
        f"The API key {key.name!r} ({key.id}) {said}; {retry}.",
        status=429,
        kind="rate_limit_error",
        code=f"{reached.limit}_exceeded",
        headers=headers,
    )


def _when(reached: LimitReached, moves_s: float | None) -> tuple[str, Mapping[str, str]]:
    if reached.wait_s is None and not reached.until_job_moves:
        return "waiting does not help", NO_RETRY
    wait = retry_after_s(moves_s if reached.wait_s is None else reached.wait_s, unknown_s=JOB_MOVES_S)
    return f"retry after {wait} s", {"retry-after": str(wait)}


def duration(seconds: float) -> str:
    """As OpenAI writes it: `0s`, `12ms`, `1.5s`, `6m0s`, `1h0m0s`. Rounded up to milliseconds, from ten seconds on to
    seconds."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 10_000:
        return f"{milliseconds / 1000:g}s"
    minutes, whole = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{whole}s"
