"""The bounded pool of threads through which a request reaches the synchronous ports (docs/adr/0002)."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    def __init__(self, size: int) -> None:
        self._limiter = CapacityLimiter(size)

    @property
    def waiting(self) -> int:
        return self._limiter.statistics().tasks_waiting

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the function in a thread. A cancelled caller still waits for its end: ports bound their own time, and
        no write may be left half observed."""
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)
