"""What the engine has done since its start, and how fast lately."""

import time
from collections import Counter, deque

_WINDOW_S = 5.0
_MARK_S = 0.25


class Counters:
    """`tokens_per_s` looks back five seconds at most, so it falls to zero when nothing is generated."""

    def __init__(self) -> None:
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.steps_by_batch: Counter[int] = Counter()
        self._marks = deque([(time.monotonic(), 0)])

    def count_step(self) -> None:
        """Call before what the step generates is counted."""
        self.steps += 1
        now = time.monotonic()
        if now - self._marks[-1][0] >= _MARK_S:
            self._marks.append((now, self.generated_tokens))

    def tokens_per_s(self) -> float:
        now = time.monotonic()
        while len(self._marks) > 1 and self._marks[1][0] <= now - _WINDOW_S:
            self._marks.popleft()
        since, count = self._marks[0]
        if since < now - _WINDOW_S and count == self.generated_tokens:
            return 0.0
        return (self.generated_tokens - count) / max(now - since, 1e-3)
