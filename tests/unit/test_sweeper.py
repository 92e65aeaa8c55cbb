"""What a sweep does while the silence of workers tells nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.job import JobState
from jobs.ports import WorkerRecord
from tests.fakes.event_log import FakeEventLog
from tests.fakes.queue import FakeControl, FakeQueue
from tests.fakes.store import FakeJobStore
from tests.fixtures.jobs import new_job
from worker.sweeper import Sweeper

pytestmark = pytest.mark.unit

LEASE_S = 10.0
WORKER = WorkerRecord("host:1:ab", "tiny", "host", 1, slots=4)


def test_dead_workers_lease_from_before_the_clock_was_set_back_runs_out_while_nobody_is_judged() -> None:
    now = [datetime.now(UTC)]
    store = FakeJobStore(lambda: now[0])
    sweeper = Sweeper(store, FakeEventLog(), FakeQueue(), FakeControl(), LEASE_S)
    store.heartbeat(WORKER)
    job_id = store.insert(new_job()).id
    assert store.claim("tiny", WORKER.id) is not None
    now[0] -= timedelta(minutes=10)
    sweeper.sweep(judge=False)
    now[0] += timedelta(seconds=LEASE_S + 1)
    sweeper.sweep(judge=False)
    assert store.get(job_id).state is JobState.IN_PROGRESS
    sweeper.sweep()
    assert store.get(job_id).state is JobState.QUEUED
