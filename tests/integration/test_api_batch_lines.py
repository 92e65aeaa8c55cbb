"""Each line of a batch is one job: what befalls it is its own, and how fast its lines become jobs."""

import openai
import psycopg
import pytest

from api.batch_process import BatchProcess
from jobs import connect
from jobs.job import JobError
from jobs.limits import KeyLimits
from jobs.ports import JobFilter
from tests.fixtures.api import MODEL, ServedApi
from tests.fixtures.batches import line, results, serve, start, stored, work_off
from tests.fixtures.damage import damage

pytestmark = pytest.mark.integration


def test_line_that_meets_a_fault_of_ours_keeps_no_other_from_its_answer(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    before = client.responses.create(model=MODEL, input="Hi", background=True)
    serve(api, 1)
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE jobs SET state = 'nowhere' WHERE id = %s", [before.id])
    bad = line("bad", "/v1/responses", previous_response_id=before.id)
    batch = start(client, line("a", "/v1/responses"), bad, line("b", "/v1/responses"), endpoint="/v1/responses")
    work_off(batch_process)
    serve(api, 2)
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, results(client, done.output_file_id).keys()) == ("completed", {"a", "b"})
    (failed,) = results(client, done.error_file_id).values()
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("bad", 500)
    assert failed["response"]["body"]["error"]["code"] == "server_error"


def test_line_whose_job_cannot_be_read_gets_its_error_and_the_others_their_answers(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(name) for name in "abc"))
    work_off(batch_process)
    first, second, third = (api.worker.claim() for _ in range(3))
    damage(api.services.database_url, first.id)
    damage(api.services.database_url, second.id)
    api.worker.answer(first)
    api.worker.fail(second, JobError("job_unreadable", "request: unknown field"))
    api.worker.answer(third)
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, results(client, done.output_file_id).keys()) == ("completed", {"a", "c"})
    (failed,) = results(client, done.error_file_id).values()
    assert (failed["custom_id"], failed["response"]["body"]["error"]["code"]) == ("b", "job_unreadable")


def test_job_of_a_living_batch_is_neither_deleted_nor_expired(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a"), line("b"))
    work_off(batch_process)
    job = api.worker.claim()
    api.worker.answer(job)
    with api.client() as http, stored(api) as (store, _):
        refused = http.delete(f"/v1/jobs/{job.id}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_of_batch")
        assert store.expire(-60) == []
        serve(api, 1)
        work_off(batch_process)
        assert client.batches.retrieve(batch.id).status == "completed"
        assert http.delete(f"/v1/jobs/{job.id}").status_code == 200


def test_job_cancelled_by_itself_fails_its_line_alone(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a"), line("b"))
    work_off(batch_process)
    serve(api, 1)
    with api.client() as http:
        (waiting,) = http.get("/v1/jobs", params={"status": "queued"}).json()["data"]
        http.post(f"/v1/jobs/{waiting['id']}/cancel")
    work_off(batch_process)
    done = client.batches.retrieve(batch.id)
    assert done.request_counts is not None
    assert (done.status, done.request_counts.failed) == ("completed", 1)
    assert results(client, done.error_file_id)["b"]["error"]["code"] == "job_cancelled"


def test_two_leaders_at_once_make_each_line_one_job_and_each_file_once(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(str(number)) for number in range(5)))
    runners = [batch_process._runner, batch_process._runner]
    store = batch_process._store
    for _ in range(2):
        seen = store.get(batch.id)
        for runner in runners:
            runner.step(seen)
    assert len(api.worker.store.claimable(50)[MODEL]) == 5
    serve(api, 5)
    for _ in range(2):
        seen = store.get(batch.id)
        for runner in runners:
            runner.step(seen)
    done = client.batches.retrieve(batch.id)
    assert (done.status, len(results(client, done.output_file_id))) == ("completed", 5)
    assert next(f.id for f in client.files.list(purpose="batch_output")) == done.output_file_id


def test_lines_go_as_fast_as_the_tokens_of_their_key_let_them(batch_process: BatchProcess, api: ServedApi) -> None:
    database = connect.database(api.services, pool_size=1)
    keys = connect.api_keys(database)
    # Each line is estimated to cost more than half of this: one goes at a time, when nothing is spent.
    key, secret = keys.create("paced", "paced", KeyLimits(tokens_per_minute=20))
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=secret, max_retries=0) as client:
        batch = start(client, *(line(name) for name in "abc"))
        for taken in (1, 2, 3):
            work_off(batch_process)
            work_off(batch_process)
            waiting = api.worker.store.page("paced", JobFilter(limit=10))
            assert len(waiting) == taken
            assert {job.origin.key_id for job in waiting} == {key.id}
            with psycopg.connect(api.services.database_url) as connection:
                connection.execute("UPDATE key_usage SET charged_at = charged_at - interval '1 day'")
        assert client.batches.cancel(batch.id).status == "cancelling"
    with psycopg.connect(api.services.database_url) as connection:
        # Without keys again, the module's other tests need none.
        connection.execute("DELETE FROM api_keys")
    database.close()
