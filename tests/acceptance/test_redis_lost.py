"""Redis dies and comes back with nothing: the rows are the truth."""

import pytest

from cli.valkey import EmbeddedValkey
from tests.acceptance.bodies import chat
from tests.acceptance.system import System
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.acceptance


def test_redis_restarted_empty_while_jobs_are_queued_all_complete(
    on_private_redis: System, private_redis: EmbeddedValkey
) -> None:
    on_private_redis.start_api()
    on_private_redis.start_maintenance()
    jobs = [on_private_redis.submit(chat(f"Say something about the number {i}.")) for i in range(20)]
    private_redis.kill()
    private_redis.start(empty=True)
    on_private_redis.start_worker()
    assert {on_private_redis.wait(job)["status"] for job in jobs} == {"incomplete"}
    assert {len(on_private_redis.job(job)["attempts"]) for job in jobs} == {1}


def test_redis_restarted_empty_in_mid_stream_the_reader_gets_every_token_once(
    on_private_redis: System, private_redis: EmbeddedValkey
) -> None:
    on_private_redis.start_api()
    on_private_redis.start_maintenance()
    on_private_redis.start_worker()
    body = chat("Tell a long story.", max_tokens=1500)
    undisturbed = on_private_redis.reader(on_private_redis.submit(body)).wait()
    job = on_private_redis.submit(body)
    reader = on_private_redis.reader(job)
    reader.wait_for_tokens(40)
    private_redis.kill()
    private_redis.start(empty=True)
    assert reader.wait() == undisturbed
    assert reader.sequences() == list(range(len(reader.events)))
    assert len(on_private_redis.job(job)["attempts"]) == 1
    after = on_private_redis.submit(chat("And now?"))
    assert on_private_redis.wait(after)["status"] == "incomplete"


def test_job_submitted_while_redis_is_down_runs_when_it_is_back(
    on_private_redis: System, private_redis: EmbeddedValkey
) -> None:
    on_private_redis.start_api()
    on_private_redis.start_maintenance()
    on_private_redis.start_worker()
    private_redis.kill()
    job = on_private_redis.submit(chat("Is anyone there?"))
    assert on_private_redis.job(job)["status"] == "queued"
    private_redis.start()
    eventually("the job ran", lambda: on_private_redis.job(job)["status"] == "incomplete")
