"""Responses through OpenAI's own client, over the real server, store and event log."""

import threading
from typing import Any

import httpx2
import openai
import pytest

from jobs.job import FinishReason, Job, JobError, JobKind, JobState, Priority, Token, TopLogprob
from jobs.request import Message, Role, TextPart
from tests.fixtures.api import MODEL, ServedApi, tokens_of
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.integration

PIXEL = "data:image/png;base64,QUJD"
OPEN_RESPONSES_KEYS = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "max_output_tokens",
    "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}  # fmt: skip


def picture(text: str = "What is this?") -> Any:
    image = {"type": "input_image", "image_url": PIXEL, "detail": "low"}
    return [{"role": "user", "content": [{"type": "input_text", "text": text}, image]}]


def test_answer_that_is_waited_for_has_openais_shape(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        raw = client.responses.with_raw_response.create(model=MODEL, input=picture(), metadata={"a": "b"})
    response = raw.parse()
    assert response.id == raw.headers["x-vlmq-job-id"]
    assert response.id.startswith("resp_")
    assert (response.status, response.output_text, response.background) == ("completed", "A red bus.", False)
    (item,) = response.output
    assert item.type == "message" and (item.role, item.status) == ("assistant", "completed")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (20, 5, 25)
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.metadata == {"a": "b"}
    assert raw.headers["x-request-id"] == response._request_id


def test_response_has_every_key_of_open_responses_and_no_null_number(api: ServedApi, http: httpx2.Client) -> None:
    with api.worker.serving():
        shown = http.post("/v1/responses", json={"model": MODEL, "input": "Hi"}).json()
    assert set(shown) >= OPEN_RESPONSES_KEYS
    assert isinstance(shown["created_at"], int) and isinstance(shown["completed_at"], int)
    for key in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs"):
        assert isinstance(shown[key], int | float), key
    assert shown["service_tier"] == "default" and shown["text"] == {"format": {"type": "text"}}


def test_request_is_recorded_as_asked(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        response = client.responses.create(
            model=MODEL, input=picture(), instructions="Be brief.", max_output_tokens=7, temperature=0, top_p=0.5,
            metadata={"a": "b"}, safety_identifier="ann", truncation="disabled",
            extra_body={
                "top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "seed": 3, "priority": "batch", "deadline": 600,
                "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"5": 2}, "stop": ["x"],
            },
        )  # fmt: skip
    job = api.worker.store.get(response.id)
    assert (job.kind, job.priority, job.metadata) == (JobKind.RESPONSE, Priority.BATCH, {"a": "b"})
    assert job.deadline is not None and 590 < (job.deadline - job.timeline.queued_at).total_seconds() < 601
    assert (job.request.max_tokens, job.request.stop) == (7, ("x",))
    sampling = job.request.sampling
    assert (sampling.seed, sampling.temperature, sampling.top_p, sampling.top_k) == (3, 0, 0.5, 4)
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.logit_bias) == (1, -1, {5: 2})
    assert job.request.messages[0] == Message(Role.SYSTEM, (TextPart("Be brief."),))
    assert len(job.request.blobs()) == 1
    assert (response.instructions, response.max_output_tokens, response.temperature) == ("Be brief.", 7, 0)


def test_answer_that_was_cut_is_incomplete(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(lambda job: api.worker.finish(job, tokens_of(("A ", "red")), FinishReason.LENGTH)):
        response = client.responses.create(model=MODEL, input="Hi", max_output_tokens=2)
    assert (response.status, response.output_text) == ("incomplete", "A red")
    assert response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].type == "message" and response.output[0].status == "incomplete"


@pytest.mark.parametrize(
    ("code", "status"), [("invalid_image", 400), ("deadline_exceeded", 504), ("server_error", 500)]
)
def test_failed_job_becomes_an_error_of_its_kind(api: ServedApi, client: openai.OpenAI, code: str, status: int) -> None:
    error = JobError(code, "It went wrong", "input[0]")
    with (
        api.worker.serving(lambda job: api.worker.fail(job, error)),
        pytest.raises(openai.APIStatusError, match="It went wrong") as caught,
    ):
        client.responses.create(model=MODEL, input="Hi")
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id


def test_background_response_is_polled_to_its_end(api: ServedApi, client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    job = api.worker.claim(made.id)
    assert job.priority is Priority.BACKGROUND
    tokens = tokens_of(("A ", "red ", "bus"))
    api.worker.save(job, tokens[:2])
    halfway = client.responses.retrieve(made.id)
    assert (halfway.status, halfway.output_text, halfway.usage) == ("in_progress", "A red ", None)
    assert halfway.output[0].type == "message" and halfway.output[0].status == "in_progress"
    api.worker.finish(job, tokens)
    done = client.responses.retrieve(made.id)
    assert (done.status, done.output_text, done.output[0].id) == ("completed", "A red bus", halfway.output[0].id)


def test_failed_background_response_tells_its_error(api: ServedApi, client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    job = api.worker.claim(made.id)
    api.worker.fail(job, JobError("invalid_image", "No picture", "input[0]"), tokens_of(("A ",)))
    done = client.responses.retrieve(made.id)
    assert done.status == "failed" and done.error is not None
    assert (done.error.code, done.error.message, done.output_text) == ("invalid_image", "No picture", "A ")


def test_cancelled_background_response_keeps_what_it_has(api: ServedApi, client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    job = api.worker.claim(made.id)
    api.worker.say(job, tokens_of(("A ", "red ")))
    cancelled = client.responses.cancel(made.id)
    assert (cancelled.status, cancelled.output_text, cancelled.usage) == ("cancelled", "A red ", None)
    assert cancelled.incomplete_details is None and cancelled.error is None
    assert client.responses.cancel(made.id) == client.responses.retrieve(made.id) == cancelled


def test_cancel_of_a_response_that_was_waited_for_is_refused(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        made = client.responses.create(model=MODEL, input="Hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(made.id)


def test_client_that_leaves_cancels_what_it_waited_for(api: ServedApi, http: httpx2.Client) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/responses", json={"model": MODEL, "input": "leaving"}, timeout=0.5)
    newest = http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["id"]
    eventually("the job is cancelled", lambda: api.worker.store.get(newest).state is JobState.CANCELLED)


def test_client_that_leaves_a_stream_cancels_it_unless_it_is_in_the_background(
    api: ServedApi, client: openai.OpenAI
) -> None:
    for background in (False, True):
        with client.responses.create(model=MODEL, input="Hi", stream=True, background=background) as stream:
            next(stream)
            job = api.worker.claim()
        if background:
            assert client.responses.retrieve(job.id).status == "in_progress"
            api.worker.answer(job)
            assert client.responses.retrieve(job.id).output_text == "A red bus."
        else:
            job_id = job.id
            eventually("it is cancelled", lambda: api.worker.store.get(job_id).state is JobState.CANCELLED)  # noqa: B023


def test_deleted_response_is_gone(api: ServedApi, client: openai.OpenAI, http: httpx2.Client) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    with pytest.raises(openai.ConflictError):
        client.responses.delete(made.id)
    client.responses.cancel(made.id)
    answer = http.delete(f"/v1/responses/{made.id}")
    assert answer.json() == {"id": made.id, "object": "response", "deleted": True}
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError) as caught:
            call(made.id)
        assert caught.value.code == "response_not_found"


def test_response_that_is_not_stored_cannot_be_read_again(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        made = client.responses.create(model=MODEL, input="Hi", store=False)
    assert made.output_text == "A red bus." and made.to_dict()["store"] is False
    for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="Hi", store=False, background=True)
    assert caught.value.param == "background"


def test_jobs_of_other_doors_are_no_responses(api: ServedApi, client: openai.OpenAI, http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    job_id = http.post("/v1/jobs", json=body).json()["id"]
    for unknown in (job_id, "resp_unknown", "resp%00"):
        assert http.get(f"/v1/responses/{unknown}").status_code == 404
    http.post(f"/v1/jobs/{job_id}/cancel")


def test_log_probabilities_are_given_when_they_are_asked_for(api: ServedApi, client: openai.OpenAI) -> None:
    tops = (TopLogprob(1, "A ", -0.1), TopLogprob(2, "\ufffd", -2.5))
    tokens = (Token(1, "A ", -0.1, tops), Token(3, "bus", -0.2, tops), Token(4, "", -0.3))
    asked: Any = {"model": MODEL, "input": "Hi", "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    with api.worker.serving(lambda job: api.worker.answer(job, tokens)):
        response = client.responses.create(**asked)
        events = list(client.responses.create(**asked, stream=True))
    assert api.worker.store.get(response.id).request.logprobs == 2
    assert response.output[0].type == "message" and response.output[0].content[0].type == "output_text"
    logprobs = response.output[0].content[0].logprobs
    assert logprobs is not None
    assert [(entry.token, entry.logprob) for entry in logprobs] == [("A ", -0.1), ("bus", -0.2), ("", -0.3)]
    assert [top.bytes for top in logprobs[0].top_logprobs] == [[0x41, 0x20], []]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert [entry.logprob for event in deltas for entry in event.logprobs] == [-0.1, -0.2, -0.3]


def test_format_of_a_schema_is_kept_and_shown(api: ServedApi, client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    with api.worker.serving():
        response = client.responses.create(
            model=MODEL,
            input="Hi",
            text={"format": {"type": "json_schema", "name": "n", "schema": schema}, "verbosity": "medium"},
        )
    job = api.worker.store.get(response.id)
    assert job.request.json_format is not None and job.request.json_format.schema is not None
    assert response.to_dict()["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": schema, "description": None, "strict": True}
    }
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(
            model=MODEL,
            input="Hi",
            text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "nothing"}}},
        )
    assert (caught.value.param, caught.value.code) == ("text.format.schema", "invalid_json_schema")


def test_response_cancelled_by_another_door_comes_back_as_cancelled(api: ServedApi, client: openai.OpenAI) -> None:
    def cancel() -> None:
        job: Job = api.worker.claim()
        client.post(f"/jobs/{job.id}/cancel", cast_to=httpx2.Response)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    response = client.responses.create(model=MODEL, input="Hi")
    canceller.join()
    assert response.status == "cancelled"
