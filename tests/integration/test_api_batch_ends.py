"""Batches that end before all their lines have run: cancelled, or their window is over."""

import openai
import psycopg
import pytest

from api.batch_process import BatchProcess
from tests.fixtures.api import ServedApi
from tests.fixtures.batches import line, results, serve, start, work_off

pytestmark = pytest.mark.integration


def test_cancelled_batch_keeps_what_was_done(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(name) for name in "abcd"))
    work_off(batch_process)
    serve(api, 1)
    running = api.worker.claim()
    asked = client.batches.cancel(batch.id)
    assert (asked.status, asked.cancelled_at) == ("cancelling", None)
    work_off(batch_process)
    assert api.worker.store.not_ours(api.worker.id, {running.id: running.attempt}) == {running.id}
    done = client.batches.retrieve(batch.id)
    assert done.status == "cancelled"
    assert done.cancelling_at and done.cancelled_at
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 1, "failed": 0}
    assert results(client, done.output_file_id).keys() == {"a"}
    codes = {name: one["error"]["code"] for name, one in results(client, done.error_file_id).items()}
    assert codes == dict.fromkeys("bcd", "batch_cancelled")
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_batch_cancelled_before_it_was_looked_at_has_no_files(
    client: openai.OpenAI, batch_process: BatchProcess
) -> None:
    batch = start(client, "nonsense")
    client.batches.cancel(batch.id)
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)


def test_ended_batch_cannot_be_cancelled(client: openai.OpenAI, batch_process: BatchProcess) -> None:
    batch = start(client, "nonsense")
    work_off(batch_process)
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "batch_not_active"


def test_window_that_is_over_expires_what_has_not_run(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(name) for name in "abc"))
    work_off(batch_process)
    serve(api, 1)
    api.worker.claim()
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE batches SET expires_at = now() WHERE id = %s", [batch.id])
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert done.status == "expired"
    assert done.expired_at and done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 0}
    errors = results(client, done.error_file_id)
    assert errors.keys() == {"b", "c"}
    for one in errors.values():
        assert one["response"] is None
        assert one["error"]["code"] == "batch_expired"


def test_many_lines_are_taken_over_several_steps_and_all_told_of_a_cancel(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(str(number)) for number in range(450)))
    assert batch_process.turn()
    taken = [batch_process._store.get(batch.id).taken for _ in range(3) if batch_process.turn()]
    assert taken == [200, 400, 450]
    client.batches.cancel(batch.id)
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, len(results(client, done.error_file_id))) == ("cancelled", 450)
