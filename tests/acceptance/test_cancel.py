"""Cancel, in any state: recorded once, and the slot is free within a second."""

import time
from typing import Any

import httpx2
import pytest

from tests.acceptance.bodies import chat
from tests.acceptance.system import System
from tests.fixtures.eventually import eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.every_backend]

LONG: dict[str, Any] = chat("Tell a long story.", max_tokens=3500)


def assert_engine_rests(system: System) -> None:
    """The engine soon computes nothing: the generation was ended, not only hidden."""
    eventually("the engine rests", lambda: rests(system), within_s=10)


def rests(system: System) -> bool:
    """Whether two of the engine's statistics, each sent every second, tell of the same tokens and of no sequence."""
    before = system.statistics()
    time.sleep(2.5)
    after = system.statistics()
    return after["running"] == 0 and after["generated_tokens"] == before["generated_tokens"]


def test_cancel_of_a_running_job_frees_its_slot(shared: System) -> None:
    assert_engine_rests(shared)
    before = shared.statistics()["generated_tokens"]
    job = shared.submit(LONG)
    reader = shared.reader(job)
    reader.wait_for_tokens(10)
    begun = time.monotonic()
    reader.wait_for_tokens(60)
    a_second = int(50 / (time.monotonic() - begun))
    assert shared.cancel(job)["status"] == "cancelled"
    reader.wait(5)
    assert reader.events[-1]["type"] == "job.cancelled"
    assert reader.sequences() == list(range(len(reader.events)))
    assert_engine_rests(shared)
    spent = shared.statistics()["generated_tokens"] - before
    assert spent < min(3500, reader.tokens() + a_second + 50), "the slot was not free within a second"
    assert shared.job(job)["output"] == reader.text()
    assert shared.cancel(job)["status"] == "cancelled"


def test_cancel_of_a_queued_job_never_runs_it(own_system: System) -> None:
    own_system.start_api()
    job = own_system.submit(LONG)
    reader = own_system.reader(job)
    assert own_system.cancel(job)["status"] == "cancelled"
    reader.wait(5)
    assert [event["type"] for event in reader.events] == ["job.queued", "job.cancelled"]
    own_system.start_worker()
    after = own_system.submit(chat("Next."))
    assert own_system.wait(after)["status"] == "incomplete"
    assert own_system.job(job)["attempts"] == []


def test_client_that_leaves_a_chat_stream_cancels_the_job(shared: System) -> None:
    with httpx2.stream("POST", f"{shared.url}/v1/chat/completions", json=LONG | {"stream": True}, timeout=30) as answer:
        job = answer.headers["x-vlmq-job-id"]
        lines = answer.iter_lines()
        for _ in range(10):
            next(lines)
    shared.wait(job, "cancelled", within_s=10)
    assert_engine_rests(shared)


def test_deadline_that_passes_while_running_fails_the_job(shared: System) -> None:
    job = shared.wait(shared.submit(LONG | {"deadline": 1}), within_s=20)
    assert (job["status"], job["error"]["code"]) == ("failed", "deadline_exceeded")
    assert_engine_rests(shared)
