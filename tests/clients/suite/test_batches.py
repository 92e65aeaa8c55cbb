"""Batches through the official client."""

import json
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.clients.suite.bodies import asking, chat
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.acceptance


def uploaded(client: openai.OpenAI, url: str, bodies: list[dict[str, Any]]) -> str:
    lines = [{"custom_id": f"line-{n}", "method": "POST", "url": url, "body": body} for n, body in enumerate(bodies)]
    raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return client.files.create(file=("lines.jsonl", raw), purpose="batch").id


def ended(client: openai.OpenAI, batch_id: str) -> Batch:
    def over() -> Batch | None:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ("completed", "failed", "expired", "cancelled") else None

    return eventually("the batch has ended", over, every_s=0.2)


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/responses"])
def test_batch_runs_to_its_files(client: openai.OpenAI, url: str) -> None:
    body = chat() if url.endswith("completions") else asking()
    file_id = uploaded(client, url, [body, body])
    made = client.batches.create(
        input_file_id=file_id,
        endpoint=url,
        completion_window="24h",
        metadata={"shelf": "7"},  # type: ignore[arg-type]
    )
    assert (made.object, made.endpoint, made.metadata) == ("batch", url, {"shelf": "7"})
    assert made.id in [batch.id for batch in client.batches.list(limit=5)]
    batch = ended(client, made.id)
    assert batch.request_counts is not None
    told = (batch.status, batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
    assert told == ("completed", 2, 2, 0)
    answers = lines_of(client, batch.output_file_id)
    assert sorted(line["custom_id"] for line in answers) == ["line-0", "line-1"]
    assert {line["response"]["status_code"] for line in answers} == {200}
    assert batch.error_file_id is None


def test_batch_of_a_wrong_file_fails_by_its_lines(client: openai.OpenAI) -> None:
    file_id = client.files.create(file=("lines.jsonl", b"no json\n"), purpose="batch").id
    made = client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = ended(client, made.id)
    assert batch.status == "failed"
    assert batch.errors is not None and batch.errors.data is not None
    assert batch.errors.data[0].line == 1


def test_another_tenants_batch_is_not_found(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    file_id = uploaded(client, "/v1/chat/completions", [chat()])
    made = client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        stranger.batches.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        stranger.batches.cancel(made.id)
    ended(client, made.id)
