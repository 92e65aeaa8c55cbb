"""When the next try of a delivery is due."""

import random
from dataclasses import dataclass

from jobs.webhooks.delivery import Answer

OBEYED = frozenset({429, 502, 503, 504})
"""Answers whose Retry-After says when their sender is ready again."""
LONGEST_WAIT_S = 86400.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """`pauses_s` are those before the first try, the second, and so on; each varies by the share `jitter`."""

    pauses_s: tuple[float, ...]
    jitter: float = 0.0

    def pause_s(self, failures: int, answer: Answer) -> float | None:
        """How long to wait after so many failed tries, the last of which got this answer. None: no more tries."""
        if failures >= len(self.pauses_s):
            return None
        pause_s = self.pauses_s[failures] * random.uniform(1 - self.jitter, 1 + self.jitter)
        if answer.status_code in OBEYED and answer.retry_after_s is not None:
            pause_s = max(pause_s, min(answer.retry_after_s, LONGEST_WAIT_S))
        return pause_s
