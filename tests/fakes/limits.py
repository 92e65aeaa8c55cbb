"""What keys have used, in memory, with a clock to turn. Passes the contract of the real one."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from jobs.job import JobState
from jobs.limits import KeyLimits, Spent, check_jobs, check_minute, lines_that_fit


class FakeKeyUsage:
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._spent: dict[str, tuple[Spent, datetime]] = {}

    def spent(self, key_id: str, limits: KeyLimits) -> Spent:
        spent, at = self._spent.get(key_id, (Spent(), self._now()))
        return spent.after((self._now() - at).total_seconds(), limits)

    def pace(self, key_id: str, limits: KeyLimits, costs: Sequence[int]) -> int:
        fitting = lines_that_fit(limits, self.spent(key_id, limits), costs)
        self.charge(key_id, limits, 0, sum(costs[:fitting]))
        return fitting

    def forget(self) -> None:
        """Nothing is kept apart."""

    def check(self, key_id: str, limits: KeyLimits, cost: int, active: Sequence[JobState]) -> None:
        check_minute(limits, self.spent(key_id, limits), cost)
        check_jobs(limits, active.count(JobState.QUEUED), len(active))

    def charge(self, key_id: str, limits: KeyLimits, requests: int, tokens: int) -> None:
        self._spent[key_id] = (self.spent(key_id, limits).plus(requests, tokens), self._now())

    def correct(self, key_id: str | None, tokens: int) -> None:
        if key_id in self._spent:
            spent, at = self._spent[key_id]
            self._spent[key_id] = (spent.plus(0, tokens), at)
