"""The official openai client, unmodified, and plain HTTP, over the whole system."""

import json

import httpx2
import jsonschema
import openai
import pytest

from tests.acceptance.bodies import chat
from tests.acceptance.system import MODEL, System
from tests.fixtures.pictures import data_url, picture
from tests.fixtures.tensorrt_llm import Serving

pytestmark = pytest.mark.acceptance


@pytest.fixture
def client(shared: System) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0)


def test_openai_client_streams_what_it_gets_whole(client: openai.OpenAI) -> None:
    body = chat("What is in these pictures?", data_url(picture()), data_url(picture(400, 700, "gold")), max_tokens=200)
    whole = client.chat.completions.create(**body)
    chunks = list(client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content != ""
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 3
    assert chunks[-1].choices == []
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 200


def test_openai_client_gets_its_error_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(**chat("x", extra_body={"frobnicate": 1}))
    assert unknown.value.param == "frobnicate"
    assert unknown.value.request_id
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**chat("x") | {"model": "gpt-17"})


def test_openai_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_job_tells_its_timeline_and_usage(shared: System) -> None:
    job = shared.wait(shared.submit(chat("What is it?", data_url(picture()), max_tokens=8, metadata={"shelf": "7"})))
    instants = [job["timeline"][k] for k in ("queued_at", "claimed_at", "prepared_at", "first_token_at", "done_at")]
    assert instants == sorted(instants)
    assert job["metadata"] == {"shelf": "7"}
    assert job["usage"]["completion_tokens"] == 8
    assert job["usage"]["prompt_tokens_details"]["image_tokens"] > 0
    assert [attempt["end"] for attempt in job["attempts"]] == ["finished"]


def test_stop_string_ends_the_answer_before_it(shared: System) -> None:
    whole = shared.wait(shared.submit(chat("Talk.", max_tokens=64)))["output"]
    stop = whole[20:26]
    job = shared.wait(shared.submit(chat("Talk.", max_tokens=64, stop=[stop])))
    assert job["output"] == whole[: whole.index(stop)]
    assert job["finish_reason"] == "stop"


def test_answer_keeps_the_schema_that_the_client_sends(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "scene", "schema": schema, "strict": True}}
    body = chat("What?", data_url(picture()), max_tokens=100, temperature=1.0, seed=1, response_format=asked)
    answer = client.chat.completions.create(**body).choices[0]
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.message.content or ""), schema)
    with pytest.raises(openai.BadRequestError) as refused:
        asked["json_schema"]["schema"] = {"type": "array", "uniqueItems": True}  # type: ignore[index]
        client.chat.completions.create(**body)
    assert refused.value.param == "response_format.json_schema.schema"


def test_openai_client_gets_three_choices_whole_and_as_a_stream(client: openai.OpenAI, serving: Serving) -> None:
    body = chat("Talk.", data_url(picture()), max_tokens=24, temperature=1.0, seed=11)
    if serving.logprobs:
        body |= {"logprobs": True, "top_logprobs": 2}
    alone = client.chat.completions.create(**body).choices[0].message.content
    whole = client.chat.completions.create(**body, n=3)
    texts = [choice.message.content for choice in whole.choices]
    assert texts[0] == alone
    assert len(set(texts)) == 3
    assert whole.usage is not None and whole.usage.completion_tokens == 72
    streamed = ["", "", ""]
    reasons: dict[int, str | None] = {}
    for chunk in client.chat.completions.create(**body, n=3, stream=True):
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason
    assert streamed == texts
    assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
    for choice in whole.choices if serving.logprobs else ():
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert "".join(t.token for t in choice.logprobs.content) == choice.message.content
        assert all(bytes(t.bytes or b"").decode() == t.token for t in choice.logprobs.content)
        assert all(len(t.top_logprobs) == 2 for t in choice.logprobs.content)


def test_logprobs_are_told_or_refused_by_name(client: openai.OpenAI, serving: Serving) -> None:
    body = chat("Talk.", max_tokens=3, logprobs=True, top_logprobs=2)
    if serving.logprobs:
        (choice,) = client.chat.completions.create(**body).choices
        assert choice.logprobs is not None and len(choice.logprobs.content or ()) == 3
        return
    with pytest.raises(openai.BadRequestError, match="logprobs = 2 cannot be had") as refused:
        client.chat.completions.create(**body)
    assert refused.value.code == "invalid_sampling"


def test_tokens_counted_before_are_those_of_the_job(shared: System) -> None:
    body = chat("What is in these?", data_url(picture()), data_url(picture(900, 250)), max_tokens=8)
    with httpx2.Client(base_url=shared.url, timeout=30) as http:
        counted = http.post("/v1/tokenize", json=body).raise_for_status().json()
        text = http.post("/v1/tokenize", json={"model": MODEL, "text": "one two"}).raise_for_status().json()
        long = http.post("/v1/tokenize", json=chat("word " * 9000)).raise_for_status().json()
        bad = http.post("/v1/tokenize", json=chat("x", data_url(b"no picture")))
    usage = shared.wait(shared.submit(body))["usage"]
    assert (counted["prompt_tokens"], counted["image_tokens"]) == (
        usage["prompt_tokens"],
        usage["prompt_tokens_details"]["image_tokens"],
    )
    assert counted["text_tokens"] == usage["prompt_tokens_details"]["text_tokens"]
    assert counted["max_completion_tokens"] == 8
    assert (0 < text["prompt_tokens"] < 8, text["image_tokens"]) == (True, 0)
    assert long["prompt_tokens"] > long["context_length"]
    assert long["max_completion_tokens"] == 0
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_image")


def test_seed_repeats_a_sampled_answer(shared: System) -> None:
    body = chat("Talk.", max_tokens=40, temperature=1.0, seed=7)
    first, second = (shared.wait(shared.submit(body))["output"] for _ in range(2))
    other = shared.wait(shared.submit(body | {"seed": 8}))["output"]
    assert first == second != other
