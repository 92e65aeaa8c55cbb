"""The threads that work on media, shared among jobs so that none waits for what is slow in another.

Knows what runs for whom and from which host; not what the work is.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from worker.errors import Stopped

A = TypeVar("A")
B = TypeVar("B")

_SHARES = 4
"""Of the threads, as many as there are jobs, one job has at most one part in so many."""


@dataclass(eq=False, slots=True)
class _Job:
    """`alone`: a thread is busy for it that no other job could have had."""

    waiting: "deque[_Task]"
    running: int = 0
    alone: bool = False
    gone: bool = False


@dataclass(eq=False, slots=True)
class _Task:
    """`host` is None for what no foreign host can hold up."""

    job: _Job
    host: str | None
    work: Callable[[], Any]
    result: "Future[Any]" = field(default_factory=Future)
    spare: bool = False


class MediaThreads:
    """Thread-safe. Each of so many jobs at once has a thread of its own. Half as many more are spare, for jobs of
    several media: a job has at most a quarter of the threads that are not spare. Media of one host have at most half of
    all; what goes on of jobs that were stopped has spare ones. What may not begin yet holds no thread; jobs take
    turns."""

    def __init__(self, jobs: int) -> None:
        self._spare = max(1, jobs // 2)
        self._free = jobs + self._spare
        self._share = max(1, jobs // _SHARES)
        self._host_share = max(1, self._free // 2)
        self._pool = ThreadPoolExecutor(self._free, thread_name_prefix="media")
        self._lock = threading.Lock()
        self._turns: list[_Job] = []
        self._hosts: Counter[str | None] = Counter()

    @property
    def waiting(self) -> int:
        """Media that may not begin yet."""
        with self._lock:
            return sum(len(job.waiting) for job in self._turns)

    def each(
        self,
        work: Callable[[A], B],
        items: Sequence[A],
        ending: "Future[Any]",
        host_of: Callable[[A], str | None] = lambda item: None,
    ) -> list[B]:
        """`work` on every item, for one job; the first error in order of items is raised, and begins no more of them.
        Raises Stopped as soon as `ending` is set."""
        job = _Job(deque())
        job.waiting.extend(_Task(job, host_of(item), partial(work, item)) for item in items)
        results = [task.result for task in job.waiting]
        if results:
            with self._lock:
                self._turns.append(job)
                self._begin()
        while not ending.done():
            running = {result for result in results if not result.done()}
            if not running:
                return _values(results)
            wait({*running, ending}, return_when=FIRST_COMPLETED)
        with self._lock:
            self._drop(job)
            job.gone = True
            self._spare -= job.alone
        raise Stopped

    def close(self) -> None:
        """What has not begun never does."""
        with self._lock:
            for job in list(self._turns):
                self._drop(job)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        """Under the lock: whatever may begin does. The job with the fewest threads is first, then the one that has
        waited longest since its last."""
        while ready := [task for job in self._turns for task in job.waiting if self._may(task)]:
            task = min(ready, key=lambda task: task.job.running)
            job = task.job
            self._free -= 1
            self._hosts[task.host] += 1
            task.spare = job.alone
            self._spare -= task.spare
            job.alone = True
            job.running += 1
            job.waiting.remove(task)
            self._turns.remove(job)
            if job.waiting:
                self._turns.append(job)
            self._pool.submit(self._run, task)

    def _may(self, task: _Task) -> bool:
        if not self._free or (task.host is not None and self._hosts[task.host] >= self._host_share):
            return False
        job = task.job
        return not job.alone or (job.running < self._share and self._spare > 0)

    def _run(self, task: _Task) -> None:
        try:
            value = task.work()
        except Exception as exc:  # noqa: BLE001 - an outer edge: whoever waits for the future raises it
            self._end(task, broken=True)
            task.result.set_exception(exc)
        else:
            self._end(task, broken=False)
            task.result.set_result(value)

    def _end(self, task: _Task, broken: bool) -> None:
        job = task.job
        with self._lock:
            self._free += 1
            self._hosts -= Counter([task.host])
            job.running -= 1
            if task.spare or job.gone:
                self._spare += 1
            else:
                job.alone = False
            if broken:
                self._drop(job)
            self._begin()

    def _drop(self, job: _Job) -> None:
        """Under the lock: what waits of it never begins."""
        for task in job.waiting:
            task.result.cancel()
            task.result.set_running_or_notify_cancel()
        job.waiting.clear()
        if job in self._turns:
            self._turns.remove(job)


def _values(results: "list[Future[B]]") -> list[B]:
    for result in results:
        if not result.cancelled() and (error := result.exception()):
            raise error
    return [result.result() for result in results]
