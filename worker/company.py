"""Which lost jobs may run beside each other. Jobs that were lost together, for what one of them does to the engine,
would be quarantined together: so a job on its last attempt runs beside none that was ever lost.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.job import Job

_LOOK_EVERY_S = 0.2


class Company:
    """Of one worker. Thread-safe. Jobs that were never lost are not held up, and are told nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lost = 0
        self._wanting = 0
        """On their last attempt, and waiting: other lost jobs do not begin before them."""
        self._alone = False

    @contextmanager
    def keeping(self, job: Job, over: Callable[[], bool]) -> Iterator[None]:
        """Waits until the job may run, and keeps others away meanwhile. Once it is `over` it waits no longer."""
        if job.losses == 0:
            yield
        elif job.losses >= job.max_attempts - 1:
            with self._by_itself(over):
                yield
        else:
            with self._among_lost(over):
                yield

    @contextmanager
    def _by_itself(self, over: Callable[[], bool]) -> Iterator[None]:
        with self._changed:
            self._wanting += 1
            mine = self._wait_for(lambda: not self._lost and not self._alone, over)
            self._wanting -= 1
            self._alone = self._alone or mine
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._alone = self._alone and not mine
                self._changed.notify_all()

    @contextmanager
    def _among_lost(self, over: Callable[[], bool]) -> Iterator[None]:
        with self._changed:
            mine = self._wait_for(lambda: not self._wanting and not self._alone, over)
            self._lost += mine
        try:
            yield
        finally:
            with self._changed:
                self._lost -= mine
                self._changed.notify_all()

    def _wait_for(self, free: Callable[[], bool], over: Callable[[], bool]) -> bool:
        """Whether it came. False: the job was over before."""
        while not free():
            if over():
                return False
            self._changed.wait(_LOOK_EVERY_S)
        return True
