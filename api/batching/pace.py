"""How fast the lines of batches become jobs: as the limit of tokens of the batch's key lets them. A key without one, or
no key, lets all go."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.batches import Batch
from jobs.keys import ApiKeys
from jobs.limits import UNLIMITED, KeyLimits, KeyUsage, lines_that_fit


@dataclass(frozen=True, slots=True)
class Pace:
    """Raises StoreUnavailable."""

    keys: ApiKeys
    usage: KeyUsage

    def waits(self, batch: Batch) -> bool:
        """Whether not even the shortest line may go now. Charges nothing."""
        limits = self._limits(batch)
        if batch.key_id is None or limits.tokens_per_minute is None:
            return False
        return not lines_that_fit(limits, self.usage.spent(batch.key_id, limits), [1])

    def let(self, batch: Batch, costs: Sequence[int]) -> int:
        """How many of the next lines may go, which are charged to the key."""
        limits = self._limits(batch)
        if batch.key_id is None or limits.tokens_per_minute is None:
            return len(costs)
        return self.usage.pace(batch.key_id, limits, costs)

    def _limits(self, batch: Batch) -> KeyLimits:
        # A revoked key's batches go on, under its limits: they are the tenant's.
        return UNLIMITED if batch.key_id is None else self.keys.get(batch.key_id).limits
