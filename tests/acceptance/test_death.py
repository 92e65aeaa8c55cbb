"""What dies, and what the client sees: nothing lost, nothing twice."""

from typing import Any

import pytest

from tests.acceptance.bodies import chat
from tests.acceptance.system import Process, Reader, System
from tests.fixtures.eventually import eventually
from tests.fixtures.pictures import data_url, picture
from tests.fixtures.tensorrt_llm import Serving

pytestmark = pytest.mark.acceptance


def long_answer() -> dict[str, Any]:
    """Long enough to be killed in the middle: the tiny model never ends by itself."""
    return chat("Tell a long story about this.", data_url(picture()), max_tokens=1500)


@pytest.mark.every_backend
def test_engine_killed_under_three_choices_each_goes_on_where_it_was(
    running: System, shared: System, serving: Serving
) -> None:
    body = chat("Tell three stories.", max_tokens=500, n=3, temperature=1.0, seed=3, ignore_eos=True)
    undisturbed = shared.wait(shared.submit(body))
    job_id = running.submit(body)
    reader = running.reader(job_id)
    reader.wait_for_tokens(60)
    worker_of(running).engine().kill()
    before = reader.told()
    reader.wait()
    job = running.job(job_id)
    assert [a["end"] for a in job["attempts"]] == ["engine_died", "finished"]
    assert reader.sequences() == list(range(len(reader.events)))
    for choice, whole in zip(job["choices"], undisturbed["choices"], strict=True):
        told = [e["text"] for e in reader.events if e.get("index") == choice["index"]]
        assert (len(told), "".join(told)) == (500, choice["output"])
        assert before[choice["index"]] and whole["output"].startswith(before[choice["index"]])
    if serving.draws_on:
        assert job["choices"] == undisturbed["choices"]


@pytest.fixture(scope="module")
def undisturbed(shared: System) -> str:
    """What the answer is when nothing dies."""
    return shared.reader(shared.submit(long_answer())).wait()


def assert_whole(reader: Reader, text: str) -> None:
    """The reader saw every event once, in order, and the text of the undisturbed run."""
    assert reader.sequences() == list(range(len(reader.events)))
    assert reader.events[-1]["type"] == "job.incomplete"
    assert reader.text() == text


def worker_of(system: System) -> Process:
    return next(p for p in system.processes if p.name == "worker")


@pytest.mark.every_backend
def test_worker_killed_in_mid_stream_the_reader_gets_every_token_once(running: System, undisturbed: str) -> None:
    job_id = running.submit(long_answer())
    reader = running.reader(job_id)
    reader.wait_for_tokens(40)
    worker_of(running).kill()
    seen = reader.tokens()
    running.start_worker()
    reader.wait()
    assert seen < 1500, "the answer was over before the kill"
    assert_whole(reader, undisturbed)
    job = running.job(job_id)
    assert [a["end"] for a in job["attempts"]] == ["lease_expired", "finished"]
    assert job["usage"]["completion_tokens"] == 1500


@pytest.mark.every_backend
def test_engine_killed_in_mid_stream_the_reader_gets_every_token_once(running: System, undisturbed: str) -> None:
    job_id = running.submit(long_answer())
    reader = running.reader(job_id)
    reader.wait_for_tokens(40)
    worker_of(running).engine().kill()
    seen = reader.tokens()
    reader.wait()
    assert seen < 1500, "the answer was over before the kill"
    assert_whole(reader, undisturbed)
    assert [a["end"] for a in running.job(job_id)["attempts"]] == ["engine_died", "finished"]


def test_worker_terminated_in_mid_stream_another_goes_on(running: System, undisturbed: str) -> None:
    job_id = running.submit(long_answer())
    reader = running.reader(job_id)
    reader.wait_for_tokens(40)
    assert worker_of(running).terminate() == 0
    seen = reader.tokens()
    running.start_worker()
    reader.wait()
    assert seen < 1500, "the answer was over before the drain"
    assert_whole(reader, undisturbed)
    assert [a["end"] for a in running.job(job_id)["attempts"]] == ["drained", "finished"]


def test_api_killed_in_mid_stream_another_goes_on_with_the_same_log(running: System, undisturbed: str) -> None:
    job_id = running.submit(long_answer())
    reader = running.reader(job_id)
    reader.wait_for_tokens(40)
    api = next(p for p in running.processes if p.name == "api")
    port = running.url.rsplit(":", 1)[1]
    api.kill()
    running.start("api", "api", VLMQ_API_PORT=port)
    reader.wait()
    assert reader.connections > 1
    assert_whole(reader, undisturbed)


def test_job_whose_worker_left_for_good_is_ended_by_the_next_one_and_is_cancellable(running: System) -> None:
    job_id = running.submit(long_answer())
    reader = running.reader(job_id)
    reader.wait_for_tokens(10)
    worker_of(running).kill()
    eventually("the job is queued again", lambda: running.job(job_id)["status"] == "queued")
    assert running.cancel(job_id)["status"] == "cancelled"
    assert reader.wait() == running.job(job_id)["output"]
    assert reader.events[-1]["type"] == "job.cancelled"
