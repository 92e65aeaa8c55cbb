"""Chat completions through the official client."""

import json

import openai
import pytest

from tests.acceptance.system import MODEL
from tests.clients.suite.bodies import WEATHER, chat, ending, seeing

pytestmark = pytest.mark.acceptance


def test_models_are_listed_and_read(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_chat_answers_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**seeing())
    choice = answer.choices[0]
    assert (answer.object, answer.model, choice.finish_reason) == ("chat.completion", MODEL, "length")
    assert choice.message.role == "assistant" and choice.message.content
    assert answer.usage is not None and answer.usage.completion_tokens == 12
    assert answer._request_id


def test_chat_streams_what_it_answers_whole(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**seeing())
    with client.chat.completions.create(**seeing(), stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    told = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert told == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 12


def test_chat_stream_helper_puts_the_answer_together(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ending())
    with client.chat.completions.stream(**ending()) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in events
    assert final.choices[0].message.content == whole.choices[0].message.content


def test_chat_answer_keeps_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ending()).choices[0]
    assert answer.finish_reason == "stop"
    assert json.loads(answer.message.content or "")["city"] in WEATHER["properties"]["city"]["enum"]


async def test_async_client_streams_as_well(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**chat())
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key, max_retries=0) as other:
        stream = await other.chat.completions.create(**chat(), stream=True)
        told = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(told) == whole.choices[0].message.content
