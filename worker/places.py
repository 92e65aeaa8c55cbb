"""How many jobs of any lane a worker runs at once. Knows only how many places are free."""

import threading


class Places:
    """Thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._freed = threading.Condition()

    def take(self) -> bool:
        """Whether there was a free place, which is the caller's until it leaves it."""
        with self._freed:
            if self._free == 0:
                return False
            self._free -= 1
            return True

    def leave(self) -> None:
        with self._freed:
            self._free += 1
            self._freed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Until a place is free, but no longer than that; somebody else may be faster to take it."""
        with self._freed:
            self._freed.wait_for(lambda: self._free > 0, timeout_s)
