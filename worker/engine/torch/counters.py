"""What the engine has done since its start, and how fast lately."""

import time
from collections import Counter, deque

_WINDOW_S = 5.0
_MARK_S = 0.25


class Counters:
    """Speeds look back five seconds at most, so they fall to zero when nothing is done."""

    def __init__(self) -> None:
        self.steps = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generated_tokens = 0
        self.steps_by_batch: Counter[int] = Counter()
        self._marks = deque([(time.monotonic(), 0, 0)])

    def count_step(self) -> None:
        """Call before what the step generates is counted."""
        self.steps += 1
        now = time.monotonic()
        if now - self._marks[-1][0] >= _MARK_S:
            self._marks.append((now, self.generated_tokens, self.prompt_tokens))

    def tokens_per_s(self) -> float:
        """Generated."""
        return self._speeds()[0]

    def served_per_s(self) -> float:
        """Generated, and of prompts whose first token came, cached or not."""
        return sum(self._speeds())

    def _speeds(self) -> tuple[float, float]:
        now = time.monotonic()
        while len(self._marks) > 1 and self._marks[1][0] <= now - _WINDOW_S:
            self._marks.popleft()
        since, generated, prompted = self._marks[0]
        if since < now - _WINDOW_S and generated == self.generated_tokens:
            return 0.0, 0.0
        passed_s = max(now - since, 1e-3)
        return (self.generated_tokens - generated) / passed_s, (self.prompt_tokens - prompted) / passed_s
