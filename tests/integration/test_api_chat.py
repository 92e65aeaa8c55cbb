"""Chat completions through OpenAI's own client, over the real server, store and event log."""

import asyncio
import json
import threading
import time
from typing import Any

import httpx2
import openai
import pytest

from jobs.job import FinishReason, Job, JobError, JobKind, JobState, Priority, Token, TopLogprob
from tests.fixtures.api import ANSWER, MODEL, ServedApi, tokens_of

pytestmark = pytest.mark.integration

MESSAGES: Any = [{"role": "user", "content": "What is this?"}]
PICTURE: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        ],
    }
]


def test_plain_answer_has_openais_shape(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=PICTURE)
    answer = raw.parse()
    assert answer.id == raw.headers["x-vlmq-job-id"]
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.service_tier) == ("chat.completion", MODEL, "default")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "A red bus.")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (20, 5, 25)
    details = answer.usage.prompt_tokens_details.to_dict()
    assert details == {"cached_tokens": 4, "image_tokens": 16, "text_tokens": 4}
    assert raw.headers["x-request-id"] == answer._request_id


def test_choices_come_apart_whole_and_as_a_stream(api: ServedApi, client: openai.OpenAI) -> None:
    tokens = (
        *(Token(1, "A", -0.5), Token(2, "The", -0.25, choice=1), Token(3, " bus", -1.0)),
        *(Token(9, "", -0.1, choice=1), Token(4, ".", -0.2)),
    )

    def serve(job: Job) -> None:
        for place, token in enumerate(tokens):
            api.worker.say(job, [token], place)
        api.worker.finish(job, tokens, FinishReason.LENGTH, (FinishReason.LENGTH, FinishReason.STOP))

    body: Any = {"model": MODEL, "messages": MESSAGES, "n": 2, "logprobs": True}
    with api.worker.serving(serve):
        whole = client.chat.completions.create(**body)
        chunks = list(client.chat.completions.create(**body, stream=True))
    assert [(c.index, c.message.content, c.finish_reason) for c in whole.choices] == [
        (0, "A bus.", "length"),
        (1, "The", "stop"),
    ]
    assert [[t.logprob for t in c.logprobs.content] for c in whole.choices if c.logprobs and c.logprobs.content] == [
        [-0.5, -1.0, -0.2],
        [-0.25, -0.1],
    ]
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    for choice in whole.choices:
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert own[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in own) == choice.message.content
        assert [c.finish_reason for c in own if c.finish_reason] == [choice.finish_reason]
    shown = httpx2.get(f"{api.url}/v1/jobs/{whole.id}").json()
    assert (shown["output"], shown["finish_reason"]) == ("A bus.", "length")
    assert [(c["index"], c["output"], c["finish_reason"]) for c in shown["choices"]] == [
        (0, "A bus.", "length"),
        (1, "The", "stop"),
    ]
    deltas = httpx2.get(f"{api.url}/v1/jobs/{whole.id}/events").text.split("\n\n")
    assert [json.loads(d.split("data: ")[1])["index"] for d in deltas if "event: job.delta" in d] == [0, 1, 0, 1, 0]


def test_more_choices_than_allowed_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="at most 8") as refused:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, n=9)
    assert refused.value.param == "n"


def test_request_is_recorded_as_asked(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        answer = client.chat.completions.create(
            model=MODEL, messages=PICTURE, max_tokens=7, temperature=0, top_p=0.5, stop=["x"], seed=3,
            presence_penalty=1, frequency_penalty=-1, logit_bias={"5": 2}, metadata={"a": "b"}, user="ann",
            extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "priority": "batch", "deadline": 600},
        )  # fmt: skip
    job = api.worker.store.get(answer.id)
    assert (job.kind, job.priority, job.metadata) == (JobKind.CHAT_COMPLETION, Priority.BATCH, {"a": "b"})
    assert job.deadline is not None and 590 < (job.deadline - job.timeline.queued_at).total_seconds() < 601
    assert (job.request.max_tokens, job.request.stop) == (7, ("x",))
    sampling = job.request.sampling
    assert (sampling.seed, sampling.temperature, sampling.top_p, sampling.top_k) == (3, 0, 0.5, 4)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.logit_bias) == (1, -1, {5: 2})
    assert len(job.request.blobs()) == 1


def test_chat_without_a_seed_gets_one_of_its_own(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        ids = [client.chat.completions.create(model=MODEL, messages=MESSAGES).id for _ in range(2)]
    first, second = (api.worker.store.get(job_id).request.sampling.seed for job_id in ids)
    assert first != second
    assert api.worker.store.get(ids[0]).priority is Priority.INTERACTIVE


def test_stream_gives_role_then_content_then_finish_then_usage(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        stream = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "A red bus."
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 25
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_stream_without_usage_has_none(api: ServedApi, http: httpx2.Client) -> None:
    with api.worker.serving():
        body = {"model": MODEL, "messages": MESSAGES, "stream": True}
        text = http.post("/v1/chat/completions", json=body).text
    assert "usage" not in text
    assert text.endswith("data: [DONE]\n\n")


def test_tokens_arrive_while_the_job_runs(api: ServedApi, client: openai.OpenAI) -> None:
    tokens = tokens_of(("one ", "two ", "three"))
    with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        # The head of the answer comes before the first token, when that takes long.
        assert next(stream).choices[0].delta.role == "assistant"
        job = api.worker.claim()
        for place, token in enumerate(tokens):
            api.worker.say(job, [token], place)
            assert next(stream).choices[0].delta.content == token.text
        api.worker.finish(job, tokens, FinishReason.LENGTH)
        assert next(stream).choices[0].finish_reason == "length"
        assert list(stream) == []


def test_logprobs_are_given_plain_and_streamed(api: ServedApi, client: openai.OpenAI) -> None:
    tops = (TopLogprob(1, "A ", -0.1), TopLogprob(2, "É", -2.5))
    tokens = (Token(1, "A ", -0.1, tops), Token(3, "bus", -0.2, tops))
    with api.worker.serving(lambda job: api.worker.answer(job, tokens)):
        asked: Any = {"model": MODEL, "messages": MESSAGES, "logprobs": True, "top_logprobs": 2}
        answer = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True))
    assert api.worker.store.get(answer.id).request.logprobs == 2
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [(entry.token, entry.logprob) for entry in logprobs.content] == [("A ", -0.1), ("bus", -0.2)]
    assert [(top.token, top.bytes) for top in logprobs.content[0].top_logprobs][1] == ("É", [0xC3, 0x89])
    streamed = [entry.token for c in chunks if (lp := c.choices[0].logprobs) for entry in lp.content or []]
    assert streamed == ["A ", "bus"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_image", 400),
        ("context_length_exceeded", 400),
        ("failed_to_download_image", 400),
        ("deadline_exceeded", 504),
        ("too_many_attempts", 500),
        ("server_error", 500),
    ],
)
def test_failed_job_becomes_an_error_of_its_kind(
    api: ServedApi, client: openai.OpenAI, code: str, status: int, stream: bool
) -> None:
    error = JobError(code, "It went wrong", "messages[0]")
    with (
        api.worker.serving(lambda job: api.worker.fail(job, error)),
        pytest.raises(openai.APIStatusError, match="It went wrong") as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert caught.value.response.headers.get("x-should-retry") == (None if status == 400 else "false")


def test_failure_in_mid_stream_is_an_error_event(api: ServedApi, client: openai.OpenAI) -> None:
    tokens = tokens_of(("one ", "two "))
    with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        job = api.worker.claim()
        api.worker.say(job, tokens)
        assert next(stream).choices[0].delta.role == "assistant"
        assert next(stream).choices[0].delta.content == "one two "
        api.worker.fail(job, JobError("server_error", "The engine is gone"), tokens)
        with pytest.raises(openai.APIError, match="The engine is gone"):
            list(stream)


def test_job_cancelled_by_another_answers_409(api: ServedApi, client: openai.OpenAI) -> None:
    def cancel() -> None:
        client.post(f"/jobs/{api.worker.claim().id}/cancel", cast_to=httpx2.Response)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(openai.ConflictError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES)
    canceller.join()
    assert caught.value.code == "job_cancelled"


def until_state(api: ServedApi, job_id: str, state: JobState) -> None:
    until = time.monotonic() + 20
    while api.worker.store.get(job_id).state is not state:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_client_that_leaves_a_plain_request_cancels_its_job(api: ServedApi, http: httpx2.Client) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/chat/completions", json={"model": MODEL, "messages": MESSAGES}, timeout=0.5)
    page = http.get("/v1/jobs", params={"limit": 1}).json()
    until_state(api, page["data"][0]["id"], JobState.CANCELLED)


def test_client_that_leaves_a_stream_cancels_its_job(api: ServedApi, client: openai.OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        job = api.worker.claim()
        api.worker.say(job, tokens_of(("one ",)))
        next(stream)
        next(stream)
    until_state(api, job.id, JobState.CANCELLED)
    until = time.monotonic() + 20
    while api.worker.store.get(job.id).text != "one ":
        assert time.monotonic() < until


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "vlmq"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_unknown_model_is_404_with_openais_code(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-4") as caught:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_async_client_streams_many_at_once(api: ServedApi) -> None:
    async def one(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0) as client:
        with api.worker.serving():
            answers = await asyncio.gather(*(one(client) for _ in range(30)))
    assert answers == ["".join(ANSWER)] * 30
