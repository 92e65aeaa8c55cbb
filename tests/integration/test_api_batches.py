"""Batches at the door: made, listed, refused by name, and their tenant's alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psycopg
import pytest

from api.batch_process import BatchProcess
from cli.services import Services
from jobs import connect
from jobs.job import JobState
from tests.fixtures.api import ServedApi, served, tokens_of
from tests.fixtures.batches import CHAT, line, results, start, work_off
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def api(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder: Path = tmp_path_factory.mktemp("batches")
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), folder), max_batches=3) as running,
    ):
        yield running


def test_batches_are_listed_and_bounded(client: openai.OpenAI, batch_process: BatchProcess) -> None:
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
    api: ServedApi, client: openai.OpenAI, batch_process: BatchProcess
) -> None:
    file = client.files.create(file=("in.jsonl", b"x"), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    with api.client(headers={"idempotency-key": "night-1"}) as http:
        first, again = http.post("/v1/batches", json=body), http.post("/v1/batches", json=body)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"


def test_another_tenants_batches_are_not_found(api: ServedApi, batch_process: BatchProcess) -> None:
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
        work_off(batch_process)
        job = api.worker.claim()
        assert (job.tenant, job.state, job.priority.name) == ("acme", JobState.IN_PROGRESS, "BATCH")
        assert job.origin.key_id == keys.list("acme")[0].id
        api.worker.finish(job, tokens_of(("x",)))
        work_off(batch_process)
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
