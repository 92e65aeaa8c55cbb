"""Batches as a tenant's official client makes and follows them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import openai
from openai.types import Batch

from tests.fixtures.eventually import WITHIN_S, eventually

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


def lines_of(bodies: Iterable[dict[str, Any]]) -> bytes:
    """A JSONL file of chat bodies; the custom ids are `line-0`, `line-1` and so on."""
    lines = ({"custom_id": f"line-{n}", "method": "POST", "url": CHAT, "body": body} for n, body in enumerate(bodies))
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def begin(client: openai.OpenAI, bodies: Iterable[dict[str, Any]]) -> Batch:
    file = client.files.create(file=("lines.jsonl", lines_of(bodies)), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")


def ended(client: openai.OpenAI, batch_id: str, within_s: float = WITHIN_S) -> Batch:
    def over() -> Batch | None:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in OVER else None

    batch: Batch = eventually(f"{batch_id} has ended", over, within_s, every_s=0.2)
    return batch


def results(client: openai.OpenAI, file_id: str | None) -> Sequence[dict[str, Any]]:
    """The lines of an output or error file; none where there is no file."""
    if file_id is None:
        return ()
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
