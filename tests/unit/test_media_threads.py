"""Which job's media get a thread, by works that stand still until they are let go."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.fixtures.eventually import eventually
from worker.errors import Stopped
from worker.media.errors import MediaCode, MediaRefused
from worker.media.threads import MediaThreads

pytestmark = pytest.mark.unit

JOBS = 8
SPARE = 4
SHARE = 2
HOST_SHARE = 6

Item = tuple[str, str, int]
"""Job, host, number."""


class Works:
    """Counts what runs; each work of a host in `slow` stands still until `go`."""

    def __init__(self, *slow: str) -> None:
        self.slow, self.go = slow, threading.Event()
        self.lock = threading.Lock()
        self.order: list[Item] = []
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def __call__(self, item: Item) -> int:
        job, host, number = item
        with self.lock:
            self.order.append(item)
            for key in (job, host, "all"):
                self.now[key] += 1
                self.most[key] = max(self.most[key], self.now[key])
        if host in self.slow:
            assert self.go.wait(90)
        with self.lock:
            self.now.subtract((job, host, "all"))
        if number < 0:
            raise MediaRefused(MediaCode.INVALID_IMAGE, str(number))
        return number


class Crowd:
    """Jobs that are prepared at once, each by a thread that waits for it."""

    def __init__(self, threads: MediaThreads, works: Works) -> None:
        self.threads, self.works = threads, works
        self.waiting = ThreadPoolExecutor(64)

    def begin(self, job: str, host: str, *numbers: int, ending: "Future[Any] | None" = None) -> "Future[list[int]]":
        items = [(job, host, number) for number in numbers]
        return self.waiting.submit(
            self.threads.each, self.works, items, ending or Future(), lambda item: item[1].rstrip("0123456789")
        )

    def holds(self, count: int) -> None:
        eventually(f"{count} works at once", lambda: self.works.now["all"] == count)


@pytest.fixture
def works() -> Works:
    return Works("slow", "slower", "slowest")


@pytest.fixture
def crowd(works: Works) -> Iterator[Crowd]:
    crowd = Crowd(MediaThreads(JOBS), works)
    yield crowd
    works.go.set()
    crowd.waiting.shutdown()
    crowd.threads.close()


def test_job_of_many_media_holds_its_share_and_others_run(crowd: Crowd, works: Works) -> None:
    slow = crowd.begin("a", "slow", *range(32))
    crowd.holds(SHARE)
    assert crowd.begin("b", "fast", *range(32)).result(90) == list(range(32))
    assert works.now["a"] == SHARE and not slow.done()
    works.go.set()
    assert slow.result(90) == list(range(32))
    assert works.most["a"] == SHARE


def test_jobs_of_several_slow_hosts_leave_every_other_job_a_thread(crowd: Crowd, works: Works) -> None:
    slow = [crowd.begin(f"s{k}", host, *range(32)) for k, host in enumerate(("slow", "slower", "slowest") * 2)]
    crowd.holds(6 + SPARE)
    rest = [crowd.begin(f"r{k}", "fast", 1, 2, 3) for k in range(JOBS - 6)]
    assert [job.result(90) for job in rest] == [[1, 2, 3]] * len(rest)
    assert works.now["all"] == 6 + SPARE and not any(job.done() for job in slow)
    assert works.most["all"] <= JOBS + SPARE and all(works.most[f"r{k}"] == 1 for k in range(len(rest)))


def test_one_host_holds_half_of_the_threads_however_many_jobs_name_it(crowd: Crowd, works: Works) -> None:
    slow = [crowd.begin(f"s{k}", "slow", *range(4)) for k in range(JOBS - 1)]
    crowd.holds(HOST_SHARE)
    assert crowd.begin("b", "fast", *range(4)).result(90) == list(range(4))
    assert works.now["slow"] == HOST_SHARE
    works.go.set()
    assert [job.result(90) for job in slow] == [list(range(4))] * len(slow)
    assert works.most["slow"] == HOST_SHARE


def test_works_of_stopped_jobs_that_go_on_take_no_thread_of_others(crowd: Crowd, works: Works) -> None:
    endings: list[Future[Any]] = [Future(), Future()]
    stopped = [crowd.begin(f"s{k}", "slow", *range(32), ending=ending) for k, ending in enumerate(endings)]
    crowd.holds(2 * SHARE)
    for ending, job in zip(endings, stopped, strict=True):
        ending.set_result(None)
        with pytest.raises(Stopped):
            job.result(90)
    others = [crowd.begin(f"o{k}", "slower" if k % 2 else "slowest", *range(4)) for k in range(JOBS)]
    crowd.holds(2 * SHARE + JOBS)
    assert [works.now[f"o{k}"] for k in range(JOBS)] == [1] * JOBS
    works.go.set()
    assert [job.result(90) for job in others] == [list(range(4))] * JOBS
    assert sum(1 for item in works.order if item[0].startswith("s")) == 2 * SHARE


def test_jobs_take_turns_at_a_host_that_has_no_more_room(works: Works) -> None:
    crowd = Crowd(MediaThreads(1), works)
    first = crowd.begin("a", "slow", *range(3))
    crowd.holds(1)
    second = crowd.begin("b", "slow", *range(3))
    eventually("the second job's media wait", lambda: crowd.threads.waiting == 2 + 3)
    works.go.set()
    assert (first.result(90), second.result(90)) == ([0, 1, 2], [0, 1, 2])
    assert [job for job, _, _ in works.order] == ["a", "a", "b", "a", "b", "b"]
    crowd.waiting.shutdown()
    crowd.threads.close()


def test_first_error_in_order_of_items_is_raised_and_begins_no_more(crowd: Crowd, works: Works) -> None:
    job = crowd.begin("a", "slow", -1, -2, 3, 4)
    crowd.holds(SHARE)
    works.go.set()
    with pytest.raises(MediaRefused, match="-1"):
        job.result(90)
    assert [number for _, _, number in works.order][:2] == [-1, -2]
    assert 4 not in [number for _, _, number in works.order]


def test_job_without_media_waits_for_nobody(crowd: Crowd) -> None:
    for k in range(JOBS + SPARE):
        crowd.begin(f"s{k}", ("slow", "slower", "slowest")[k % 3], *range(4))
    crowd.holds(JOBS + SPARE)
    assert crowd.begin("none", "fast").result(90) == []


def test_close_lets_nobody_wait_for_what_never_begins(works: Works) -> None:
    crowd = Crowd(MediaThreads(1), works)
    first = crowd.begin("a", "slow", 0)
    crowd.holds(1)
    second = crowd.begin("b", "slow", 1)
    eventually("the second job's media wait", lambda: crowd.threads.waiting == 1)
    crowd.threads.close()
    assert second.exception(90) is not None
    works.go.set()
    assert first.result(90) == [0]
    crowd.waiting.shutdown()


def test_bounds_hold_and_no_thread_is_lost_among_many_jobs_that_end_and_fail_and_stop(crowd: Crowd) -> None:
    crowd.works = busy = Works()
    seeds = random.Random(6)
    endings: list[Future[Any]] = [Future() for _ in range(400)]
    jobs = [
        crowd.begin(
            f"j{k}",
            seeds.choice(("x", "y", "z")),
            *[seeds.choice((*range(20), -1)) for _ in range(seeds.randrange(9))],
            ending=ending,
        )
        for k, ending in enumerate(endings)
    ]
    for ending in seeds.sample(endings, 150):
        ending.set_result(None)
    ends = Counter(type(job.exception(90)) for job in jobs)
    assert set(ends) == {type(None), MediaRefused, Stopped}
    eventually("nothing runs", lambda: busy.now["all"] == 0)
    assert all(busy.most[host] <= HOST_SHARE for host in "xyz")
    assert all(busy.most[f"j{k}"] <= SHARE for k in range(len(jobs)))
    assert busy.most["all"] <= JOBS + SPARE
    crowd.works = Works("slow", "slower", "slowest")
    try:
        after = [crowd.begin(f"s{k}", ("slow", "slower", "slowest")[k % 3], *range(4)) for k in range(JOBS)]
        crowd.holds(JOBS + SPARE)
    finally:
        crowd.works.go.set()
    assert [job.result(90) for job in after] == [list(range(4))] * JOBS
