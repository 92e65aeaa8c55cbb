"""The store of jobs in memory: a part per thing that it holds, and `store` on top."""

from tests.fakes.store.store import FakeJobStore

__all__ = ["FakeJobStore"]
