"""Batches from file to file: the real routes and the real process over a real database; the workers are scripted."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from api.batch_process import BatchProcess
from api.settings import ApiSettings
from cli.services import Services
from jobs import connect
from jobs.job import Job, JobError, JobState
from jobs.limits import KeyLimits
from jobs.ports import JobFilter
from tests.fixtures.api import MODEL, ServedApi, served, tokens_of
from tests.fixtures.damage import damage
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

CHAT = "/v1/chat/completions"
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(scope="module")
def api(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder: Path = tmp_path_factory.mktemp("batches")
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), folder), max_batches=3) as running,
    ):
        yield running


@pytest.fixture
def client(api: ServedApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def process(api: ServedApi) -> Iterator[BatchProcess]:
    """A process that turns when told to. Afterwards nothing of the test's batches is left to do."""
    made = BatchProcess(api.services, ApiSettings(), threading.Event())
    yield made
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE batches SET ended_at = now() WHERE ended_at IS NULL")
        connection.execute("DELETE FROM jobs")
    made.close()


def line(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked = {"input": "Hi"} if url == "/v1/responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": MODEL, **asked, **body}}


def start(client: openai.OpenAI, *lines: Any, endpoint: Any = CHAT, **more: Any) -> Any:
    text = "\n".join(given if isinstance(given, str) else json.dumps(given) for given in lines)
    file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def work_off(process: BatchProcess) -> None:
    """Turns until there is nothing to do at once."""
    while process.turn():
        pass


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    lines = [json.loads(one) for one in client.files.content(file_id).text.splitlines()]
    assert all(one.keys() == {"id", "custom_id", "response", "error"} for one in lines)
    assert len({one["id"] for one in lines}) == len(lines)
    return {one["custom_id"]: one for one in lines}


def serve(api: ServedApi, count: int, how: Callable[[Job], object] | None = None) -> None:
    for _ in range(count):
        (how or api.worker.answer)(api.worker.claim())


def test_line_that_meets_a_fault_of_ours_keeps_no_other_from_its_answer(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    before = client.responses.create(model=MODEL, input="Hi", background=True)
    serve(api, 1)
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE jobs SET state = 'nowhere' WHERE id = %s", [before.id])
    bad = line("bad", "/v1/responses", previous_response_id=before.id)
    batch = start(client, line("a", "/v1/responses"), bad, line("b", "/v1/responses"), endpoint="/v1/responses")
    work_off(process)
    serve(api, 2)
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, results(client, done.output_file_id).keys()) == ("completed", {"a", "b"})
    (failed,) = results(client, done.error_file_id).values()
    assert (failed["custom_id"], failed["response"]["status_code"]) == ("bad", 500)
    assert failed["response"]["body"]["error"]["code"] == "server_error"


def test_line_whose_job_cannot_be_read_gets_its_error_and_the_others_their_answers(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(name) for name in "abc"))
    work_off(process)
    first, second, third = (api.worker.claim() for _ in range(3))
    damage(api.services.database_url, first.id)
    damage(api.services.database_url, second.id)
    api.worker.answer(first)
    api.worker.fail(second, JobError("job_unreadable", "request: unknown field"))
    api.worker.answer(third)
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, results(client, done.output_file_id).keys()) == ("completed", {"a", "c"})
    (failed,) = results(client, done.error_file_id).values()
    assert (failed["custom_id"], failed["response"]["body"]["error"]["code"]) == ("b", "job_unreadable")


def test_batch_of_chat_lines_runs_to_its_files(client: openai.OpenAI, process: BatchProcess, api: ServedApi) -> None:
    batch = start(
        client,
        line("a"),
        "",
        line("bad", temperature=9),
        line("b", n=2, seed=1),
        line("c"),
        metadata={"night": "1"},
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (batch.object, batch.status, batch.endpoint) == ("batch", "validating", CHAT)
    assert batch.expires_at == batch.created_at + 24 * 3600
    work_off(process)
    running = client.batches.retrieve(batch.id)
    assert (running.status, running.model, running.metadata) == ("in_progress", MODEL, {"night": "1"})
    assert running.request_counts is not None
    assert running.request_counts.model_dump() == {"total": 4, "completed": 0, "failed": 1}
    serve(api, 2)
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None and (counts.completed, counts.failed) == (2, 1)
    serve(api, 1, lambda job: api.worker.fail(job, JobError("invalid_image", "no picture")))
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.errors) == ("completed", None)
    assert done.completed_at and done.finalizing_at and done.in_progress_at and not done.cancelled_at
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
    assert done.usage is not None and (done.usage.total_tokens, done.usage.output_tokens) == (50, 10)
    assert done.usage.input_tokens_details.cached_tokens == 8
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert (good.keys(), bad.keys()) == ({"a", "b"}, {"bad", "c"})
    answer = good["a"]["response"]
    assert (answer["status_code"], good["a"]["error"]) == (200, None)
    assert answer["body"]["choices"][0]["message"]["content"] == "A red bus."
    assert answer["request_id"] == answer["body"]["id"]
    assert (bad["bad"]["response"]["status_code"], bad["c"]["response"]["status_code"]) == (400, 400)
    assert bad["bad"]["response"]["body"]["error"]["param"] == "temperature"
    assert bad["c"]["response"]["body"]["error"]["code"] == "invalid_image"
    output = client.files.retrieve(done.output_file_id or "")
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert output.expires_at == output.created_at + 7200


def test_batch_of_responses_runs_to_its_files(client: openai.OpenAI, process: BatchProcess, api: ServedApi) -> None:
    url = "/v1/responses"
    batch = start(
        client, line("a", url), line("b", url, stream=True), line("c", url, priority="interactive"), endpoint=url
    )
    work_off(process)
    serve(api, 1)
    work_off(process)
    done = client.batches.retrieve(batch.id)
    body = results(client, done.output_file_id)["a"]["response"]["body"]
    assert (body["object"], body["status"]) == ("response", "completed")
    assert body["output"][0]["content"][0]["text"] == "A red bus."
    errors = results(client, done.error_file_id)
    assert [errors[name]["response"]["body"]["error"]["param"] for name in ("b", "c")] == ["stream", "priority"]


@pytest.mark.parametrize(
    ("lines", "code", "number", "param"),
    [
        (["{"], "invalid_json_line", 1, None),
        ([line("a"), "[]"], "invalid_json_line", 2, None),
        ([line("a"), "", line("b") | {"method": "GET"}], "invalid_method", 3, "method"),
        ([line("a", "/v1/responses")], "invalid_url", 1, "url"),
        ([line("a"), line("a")], "duplicate_custom_id", 2, "custom_id"),
        ([{k: v for k, v in line("a").items() if k != "custom_id"}], "missing_required_parameter", 1, "custom_id"),
        ([line("a") | {"custom_id": 7}], "invalid_type", 1, "custom_id"),
        ([line("")], "invalid_custom_id", 1, "custom_id"),
        ([line("a") | {"body": "x"}], "invalid_type", 1, "body"),
        ([line("a") | {"body": {}}], "missing_required_parameter", 1, "body.model"),
        ([line("a", model="gpt-17")], "model_not_found", 1, "body.model"),
        ([line("a") | {"colour": "red"}], "unknown_parameter", 1, "colour"),
        ([" ", ""], "empty_file", None, None),
    ],
)
def test_wrong_file_fails_the_batch_and_names_the_line(
    client: openai.OpenAI, process: BatchProcess, lines: list[Any], code: str, number: int | None, param: str | None
) -> None:
    batch = start(client, *lines)
    work_off(process)
    failed = client.batches.retrieve(batch.id)
    assert (failed.status, failed.output_file_id, failed.error_file_id) == ("failed", None, None)
    assert failed.failed_at
    assert failed.errors is not None and failed.errors.data is not None
    assert [(e.code, e.line, e.param) for e in failed.errors.data] == [(code, number, param)]


def test_cancelled_batch_keeps_what_was_done(client: openai.OpenAI, process: BatchProcess, api: ServedApi) -> None:
    batch = start(client, *(line(name) for name in "abcd"))
    work_off(process)
    serve(api, 1)
    running = api.worker.claim()
    asked = client.batches.cancel(batch.id)
    assert (asked.status, asked.cancelled_at) == ("cancelling", None)
    work_off(process)
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


def test_batch_cancelled_before_it_was_looked_at_has_no_files(client: openai.OpenAI, process: BatchProcess) -> None:
    batch = start(client, "nonsense")
    client.batches.cancel(batch.id)
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)


def test_ended_batch_cannot_be_cancelled(client: openai.OpenAI, process: BatchProcess) -> None:
    batch = start(client, "nonsense")
    work_off(process)
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "batch_not_active"


def test_window_that_is_over_expires_what_has_not_run(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(name) for name in "abc"))
    work_off(process)
    serve(api, 1)
    api.worker.claim()
    with psycopg.connect(api.services.database_url) as connection:
        connection.execute("UPDATE batches SET expires_at = now() WHERE id = %s", [batch.id])
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert done.status == "expired"
    assert done.expired_at and done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 3, "completed": 1, "failed": 0}
    errors = results(client, done.error_file_id)
    assert errors.keys() == {"b", "c"}
    for one in errors.values():
        assert one["response"] is None
        assert one["error"]["code"] == "batch_expired"


def test_input_file_deleted_in_mid_batch_is_kept_by_the_batch(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a", messages=[picture_message()]))
    client.files.delete(batch.input_file_id)
    work_off(process)
    with connected(api) as (store, blobs):
        assert store.orphan_blobs(blobs.older_than(-60)) == frozenset()
    serve(api, 1)
    work_off(process)
    assert client.batches.retrieve(batch.id).status == "completed"


def picture_message() -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}


def test_lost_input_fails_the_batch(client: openai.OpenAI, process: BatchProcess, api: ServedApi) -> None:
    batch = start(client, line("only"))
    with connected(api) as (_, blobs), psycopg.connect(api.services.database_url) as connection:
        row = connection.execute("SELECT digest FROM batches WHERE id = %s", [batch.id]).fetchone()
        assert row is not None
        blobs.delete(row[0])
    work_off(process)
    failed = client.batches.retrieve(batch.id)
    assert failed.errors is not None and failed.errors.data is not None
    assert (failed.status, failed.errors.data[0].code) == ("failed", "input_file_lost")


def test_job_of_a_living_batch_is_neither_deleted_nor_expired(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a"), line("b"))
    work_off(process)
    job = api.worker.claim()
    api.worker.answer(job)
    with api.client() as http, connected(api) as (store, _):
        refused = http.delete(f"/v1/jobs/{job.id}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_of_batch")
        assert store.expire(-60) == []
        serve(api, 1)
        work_off(process)
        assert client.batches.retrieve(batch.id).status == "completed"
        assert http.delete(f"/v1/jobs/{job.id}").status_code == 200


def test_job_cancelled_by_itself_fails_its_line_alone(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a"), line("b"))
    work_off(process)
    serve(api, 1)
    with api.client() as http:
        (waiting,) = http.get("/v1/jobs", params={"status": "queued"}).json()["data"]
        http.post(f"/v1/jobs/{waiting['id']}/cancel")
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert done.request_counts is not None
    assert (done.status, done.request_counts.failed) == ("completed", 1)
    assert results(client, done.error_file_id)["b"]["error"]["code"] == "job_cancelled"


def test_two_leaders_at_once_make_each_line_one_job_and_each_file_once(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(str(number)) for number in range(5)))
    runners = [process._runner, process._runner]
    store = process._store
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


def test_many_lines_are_taken_over_several_steps_and_all_told_of_a_cancel(
    client: openai.OpenAI, process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, *(line(str(number)) for number in range(450)))
    assert process.turn()
    taken = [process._store.get(batch.id).taken for _ in range(3) if process.turn()]
    assert taken == [200, 400, 450]
    client.batches.cancel(batch.id)
    work_off(process)
    done = client.batches.retrieve(batch.id)
    assert (done.status, len(results(client, done.error_file_id))) == ("cancelled", 450)


def test_batches_are_listed_and_bounded(client: openai.OpenAI, process: BatchProcess) -> None:
    ids = [start(client, line("a")).id for _ in range(3)]
    with pytest.raises(openai.RateLimitError) as refused:
        start(client, line("a"))
    assert refused.value.response.headers["retry-after"] == "60"
    page = client.batches.list(limit=2)
    assert ([b.id for b in page.data], page.has_more) == ([ids[2], ids[1]], True)
    assert next(b.id for b in client.batches.list(after=ids[1])) == ids[0]


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"endpoint": "/v1/poems"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_wrong_batch_is_refused_by_name(client: openai.OpenAI, values: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(
            **({"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"} | values)  # type: ignore[arg-type]
        )
    assert refused.value.param == param


def test_unknown_files_and_batches_are_not_found(client: openai.OpenAI) -> None:
    for attempt in (
        lambda: client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h"),
        lambda: client.batches.retrieve("batch_none"),
        lambda: client.batches.cancel("batch_none"),
        lambda: client.batches.list(after="batch_none"),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    picture = client.files.create(file=("a.png", b"x"), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(input_file_id=picture.id, endpoint=CHAT, completion_window="24h")


def test_same_batch_again_under_one_key_is_one_batch(
    api: ServedApi, client: openai.OpenAI, process: BatchProcess
) -> None:
    file = client.files.create(file=("in.jsonl", b"x"), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    with api.client(headers={"idempotency-key": "night-1"}) as http:
        first, again = http.post("/v1/batches", json=body), http.post("/v1/batches", json=body)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"


def test_another_tenants_batches_are_not_found(api: ServedApi, process: BatchProcess) -> None:
    database = connect.database(api.services)
    keys = connect.api_keys(database)
    acme, other = (
        openai.OpenAI(base_url=f"{api.url}/v1", api_key=keys.create(tenant, "t")[1], max_retries=0)
        for tenant in ("acme", "other")
    )
    try:
        batch = start(acme, line("a"))
        for attempt in (
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.batches.list(after=batch.id),
            lambda: other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError):
                attempt()
        assert other.batches.list().data == []
        work_off(process)
        job = api.worker.claim()
        assert (job.tenant, job.state, job.priority.name) == ("acme", JobState.IN_PROGRESS, "BATCH")
        assert job.origin.key_id == keys.list("acme")[0].id
        api.worker.finish(job, tokens_of(("x",)))
        work_off(process)
        done = acme.batches.retrieve(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.files.content(done.output_file_id or "")
        assert results(acme, done.output_file_id).keys() == {"a"}
    finally:
        acme.close()
        other.close()
        with psycopg.connect(api.services.database_url) as connection:
            connection.execute("DELETE FROM api_keys")
        database.close()


class connected:
    """Store and blobs of the served installation."""

    def __init__(self, api: ServedApi) -> None:
        self._database = connect.database(api.services)
        self._blobs = connect.blobs(api.services)

    def __enter__(self) -> tuple[Any, Any]:
        return connect.job_store(self._database), self._blobs

    def __exit__(self, *exc: object) -> None:
        self._database.close()


def test_lines_go_as_fast_as_the_tokens_of_their_key_let_them(process: BatchProcess, api: ServedApi) -> None:
    database = connect.database(api.services, pool_size=1)
    keys = connect.api_keys(database)
    # Each line is estimated to cost more than half of this: one goes at a time, when nothing is spent.
    key, secret = keys.create("paced", "paced", KeyLimits(tokens_per_minute=20))
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=secret, max_retries=0) as client:
        batch = start(client, *(line(name) for name in "abc"))
        for taken in (1, 2, 3):
            work_off(process)
            work_off(process)
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
