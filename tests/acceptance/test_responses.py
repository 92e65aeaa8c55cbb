"""Responses over the whole system: turns that reuse the cache, streams that are resumed, tokens counted before."""

from typing import Any

import openai
import pytest

from tests.acceptance.system import MODEL, System
from tests.fixtures.pictures import data_url, picture
from tests.fixtures.tensorrt_llm import Serving

pytestmark = pytest.mark.acceptance


@pytest.fixture
def client(shared: System) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0)


def pictures(text: str) -> Any:
    parts: list[dict[str, Any]] = [
        {"type": "input_image", "image_url": data_url(picture(400, height, "teal")), "detail": "auto"}
        for height in (300, 520)
    ]
    return [{"role": "user", "content": [*parts, {"type": "input_text", "text": text}]}]


def test_three_turns_over_pictures_compute_only_what_is_new(client: openai.OpenAI, serving: Serving) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 24, "instructions": "Look closely."}
    turn = client.responses.create(input=pictures("What is in these?"), **asked)
    for question in ("And behind them?", "Are you sure?"):
        assert turn.usage is not None
        known = turn.usage.input_tokens
        tokens = client.responses.input_tokens.count(
            model=MODEL, input=question, previous_response_id=turn.id, instructions="Look closely."
        )
        turn = client.responses.create(input=question, previous_response_id=turn.id, **asked)
        assert turn.usage is not None
        assert turn.usage.input_tokens == tokens.input_tokens > known
        assert turn.usage.input_tokens_details.cached_tokens >= known // serving.block * serving.block > 0


def test_background_stream_is_left_and_resumed_at_every_event(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Talk.", "temperature": 0, "max_output_tokens": 20}
    with client.responses.create(**asked, background=True, stream=True) as stream:
        first = next(stream)
        assert first.type == "response.created"
    whole = list(client.responses.retrieve(first.response.id, stream=True))
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    last = whole[-1]
    assert last.type == "response.incomplete" and last.response.output_text
    for after in range(len(whole)):
        rest = client.responses.retrieve(first.response.id, stream=True, starting_after=after)
        assert list(rest) == whole[after + 1 :]
    done = client.responses.retrieve(first.response.id)
    assert done.output_text == last.response.output_text
    assert "".join(event.delta for event in whole if event.type == "response.output_text.delta") == done.output_text
