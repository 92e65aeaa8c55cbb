"""How often what waits is added up."""

import time

from api.queue_watch import FRESH_S, READING_SHARE, QueueWatch
from jobs.queue_place import Lines
from tests.fakes.store import FakeJobStore


class LongQueue(FakeJobStore):
    """Takes half a second to add up, as one of a million jobs does."""

    TAKES_S = 0.5
    readings = 0

    def lines(self) -> Lines:
        self.readings += 1
        time.sleep(self.TAKES_S)
        return super().lines()


def test_queue_that_is_slow_to_add_up_is_read_less_often() -> None:
    store = LongQueue()
    watch = QueueWatch(store, lease_s=10)
    began = time.monotonic()
    while time.monotonic() - began < 3 * FRESH_S:
        watch.queued("m")
        time.sleep(0.05)
    lasted_s = time.monotonic() - began
    assert store.readings <= 1 + lasted_s * READING_SHARE / store.TAKES_S
