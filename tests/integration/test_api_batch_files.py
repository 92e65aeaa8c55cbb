"""Batches from file to file: the real routes and the real process over a real database; the workers are scripted."""

from typing import Any

import openai
import psycopg
import pytest

from api.batch_process import BatchProcess
from jobs.job import JobError
from tests.fixtures.api import MODEL, ServedApi
from tests.fixtures.batches import CHAT, line, picture_message, results, serve, start, stored, work_off

pytestmark = pytest.mark.integration


def test_batch_of_chat_lines_runs_to_its_files(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
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
    work_off(batch_process)
    running = client.batches.retrieve(batch.id)
    assert (running.status, running.model, running.metadata) == ("in_progress", MODEL, {"night": "1"})
    assert running.request_counts is not None
    assert running.request_counts.model_dump() == {"total": 4, "completed": 0, "failed": 1}
    serve(api, 2)
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None and (counts.completed, counts.failed) == (2, 1)
    serve(api, 1, lambda job: api.worker.fail(job, JobError("invalid_image", "no picture")))
    work_off(batch_process)
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


def test_batch_of_responses_runs_to_its_files(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    url = "/v1/responses"
    batch = start(
        client, line("a", url), line("b", url, stream=True), line("c", url, priority="interactive"), endpoint=url
    )
    work_off(batch_process)
    serve(api, 1)
    work_off(batch_process)
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
    client: openai.OpenAI,
    batch_process: BatchProcess,
    lines: list[Any],
    code: str,
    number: int | None,
    param: str | None,
) -> None:
    batch = start(client, *lines)
    work_off(batch_process)
    failed = client.batches.retrieve(batch.id)
    assert (failed.status, failed.output_file_id, failed.error_file_id) == ("failed", None, None)
    assert failed.failed_at
    assert failed.errors is not None and failed.errors.data is not None
    assert [(e.code, e.line, e.param) for e in failed.errors.data] == [(code, number, param)]


def test_input_file_deleted_in_mid_batch_is_kept_by_the_batch(
    client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi
) -> None:
    batch = start(client, line("a", messages=[picture_message()]))
    client.files.delete(batch.input_file_id)
    work_off(batch_process)
    with stored(api) as (store, blobs):
        assert store.orphan_blobs(blobs.older_than(-60)) == frozenset()
    serve(api, 1)
    work_off(batch_process)
    assert client.batches.retrieve(batch.id).status == "completed"


def test_lost_input_fails_the_batch(client: openai.OpenAI, batch_process: BatchProcess, api: ServedApi) -> None:
    batch = start(client, line("only"))
    with stored(api) as (_, blobs), psycopg.connect(api.services.database_url) as connection:
        row = connection.execute("SELECT digest FROM batches WHERE id = %s", [batch.id]).fetchone()
        assert row is not None
        blobs.delete(row[0])
    work_off(batch_process)
    failed = client.batches.retrieve(batch.id)
    assert failed.errors is not None and failed.errors.data is not None
    assert (failed.status, failed.errors.data[0].code) == ("failed", "input_file_lost")
