"""How often what waits is added up, and what is said while it cannot be."""

import time
from typing import Any

from api.eta import Wait
from api.queue_watch import FRESH_S, READING_SHARE, QueueWatch
from jobs.errors import StoreUnavailable
from jobs.queue_place import Lines
from tests.fakes.store import FakeJobStore
from tests.fixtures.jobs import new_job


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


class StoreThatGoes(FakeJobStore):
    """Answers until `gone`."""

    gone = False

    def queue_place(self, *args: Any) -> Any:
        if self.gone:
            raise StoreUnavailable("restarting")
        return super().queue_place(*args)


def test_job_that_was_recorded_just_before_the_database_went_away_has_a_place_all_the_same() -> None:
    store = StoreThatGoes()
    watch = QueueWatch(store, lease_s=10)
    jobs = []
    for _ in range(2):
        new = new_job(model="m")
        assert watch.add(new, most=10)
        jobs.append(store.insert(new))
    store.gone = True
    assert watch.wait_of_new(jobs[-1]) == Wait(1, None)
