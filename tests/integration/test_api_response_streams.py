"""Streams of responses: OpenAI's own helpers, any number of readers, resumed at every sequence number, at any time."""

import json
import threading
from typing import Any

import httpx2
import openai
import pytest
import redis

from jobs.job import FinishReason, JobError, Token
from tests.fixtures.api import MODEL, ServedApi, tokens_of

pytestmark = pytest.mark.integration

TOKENS = tokens_of(("A ", "red ", "bus", ".", ""))
Events = list[dict[str, Any]]


@pytest.fixture
def answered(api: ServedApi, client: openai.OpenAI) -> str:
    """A background response that has ended, created without `stream`."""
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    api.worker.answer(api.worker.claim(made.id))
    return made.id


def events_of(text: str) -> Events:
    """Of a stream's body; checks the framing."""
    events = []
    for frame in text.split("\n\n"):
        if frame and not frame.startswith(":"):
            number, name, data = frame.split("\n")
            event = json.loads(data.removeprefix("data: "))
            assert number == f"id: {event['sequence_number']}" and name == f"event: {event['type']}"
            events.append(event)
    return events


def read(http: httpx2.Client, response_id: str, **params: Any) -> Events:
    answer = http.get(f"/v1/responses/{response_id}", params={"stream": "true", **params})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events_of(answer.text)


def test_stream_of_a_new_response_is_accumulated_by_the_helper(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(), client.responses.stream(model=MODEL, input="Hi") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert (final.status, final.output_text) == ("completed", "A red bus.")
    assert final.usage is not None and final.usage.total_tokens == 25


def test_helper_resumes_at_every_sequence_number(client: openai.OpenAI, answered: str) -> None:
    with client.responses.stream(response_id=answered) as stream:
        numbers = [event.sequence_number for event in stream]
    for after in range(len(numbers) - 1):
        with client.responses.stream(response_id=answered, starting_after=after) as stream:
            assert [event.sequence_number for event in stream] == numbers[after + 1 :]
            assert stream.get_final_response().output_text == "A red bus."


def test_retrieve_resumes_at_every_sequence_number_with_exactly_the_rest(
    client: openai.OpenAI, http: httpx2.Client, answered: str
) -> None:
    whole = read(http, answered)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    for after in range(len(whole)):
        assert read(http, answered, starting_after=after) == whole[after + 1 :]
        resumed = client.responses.retrieve(answered, stream=True, starting_after=after)
        assert [event.sequence_number for event in resumed] == list(range(after + 1, len(whole)))
    header = {"last-event-id": "3"}
    answer = http.get(f"/v1/responses/{answered}", params={"stream": "true"}, headers=header)
    assert events_of(answer.text) == whole[4:]


def test_resume_behind_the_end_is_refused(http: httpx2.Client, answered: str) -> None:
    last = len(read(http, answered)) - 1
    answer = http.get(f"/v1/responses/{answered}", params={"stream": "true", "starting_after": last + 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")
    answer = http.get(f"/v1/responses/{answered}", params={"starting_after": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


def test_events_arrive_while_the_job_runs(api: ServedApi, client: openai.OpenAI) -> None:
    with client.responses.create(model=MODEL, input="Hi", stream=True) as stream:
        assert [next(stream).type for _ in range(2)] == ["response.created", "response.queued"]
        job = api.worker.claim()
        assert next(stream).type == "response.in_progress"
        for place, token in enumerate(TOKENS[:3]):
            api.worker.say(job, [token], place)
            if place == 0:
                assert [next(stream).type for _ in range(2)] == [
                    "response.output_item.added",
                    "response.content_part.added",
                ]
            event = next(stream)
            assert event.type == "response.output_text.delta" and event.delta == token.text
        api.worker.finish(job, TOKENS[:3], FinishReason.LENGTH)
        ends = [event.type for event in stream]
        assert ends[-1] == "response.incomplete" and len(ends) == 4


def test_all_readers_before_during_and_after_see_the_same_from_redis_and_from_the_row(
    api: ServedApi, client: openai.OpenAI, http: httpx2.Client
) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True, stream=False)
    seen: list[Events] = []

    def follow() -> None:
        with api.client() as other:
            seen.append(read(other, made.id))

    readers = [threading.Thread(target=follow) for _ in range(6)]
    for reader in readers[:3]:
        reader.start()
    job = api.worker.claim(made.id)
    for place, token in enumerate(TOKENS):
        api.worker.say(job, [token], place)
        if place == 2:
            for reader in readers[3:]:
                reader.start()
    api.worker.finish(job, TOKENS)
    for reader in readers:
        reader.join()
    after = read(http, made.id)
    api.worker.events.drop(made.id)
    assert read(http, made.id) == after
    assert seen == [after] * 6


def test_death_of_a_worker_shows_in_no_event(api: ServedApi, client: openai.OpenAI, http: httpx2.Client) -> None:
    """The next attempt goes on behind what the first one published, whether it was stored or not."""
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    lost = api.worker.claim(made.id)
    api.worker.say(lost, TOKENS[:3])
    api.worker.save(lost, TOKENS[:2])
    before = http.get(f"/v1/responses/{made.id}").json()
    api.worker.store.retire(api.worker.id)
    job = api.worker.claim(made.id)
    assert job.attempt == 2
    api.worker.say(job, TOKENS[2:], after=2)
    api.worker.finish(job, TOKENS)
    events = read(http, made.id)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["delta"] for event in events if "delta" in event] == ["A ", "red ", "bus", "."]
    assert sum(event["type"] == "response.in_progress" for event in events) == 1
    assert before["output"][0]["id"] == events[-1]["response"]["output"][0]["id"]


def test_cancelled_stream_closes_its_items_and_ends_as_incomplete(
    api: ServedApi, client: openai.OpenAI, http: httpx2.Client
) -> None:
    with client.responses.create(model=MODEL, input="Hi", background=True, stream=True) as stream:
        first = next(stream)
        assert first.type == "response.created"
        job = api.worker.claim(first.response.id)
        api.worker.say(job, TOKENS[:2])
        for event in stream:
            if event.type == "response.output_text.delta" and event.delta == "red ":
                break
        client.responses.cancel(job.id)
        rest = list(stream)
    assert [event.type for event in rest] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert rest[-1].type == "response.incomplete" and rest[-1].response.status == "cancelled"
    assert rest[-1].response.output_text == "A red "
    assert [event["sequence_number"] for event in read(http, job.id)][-1] == rest[-1].sequence_number


def test_failed_stream_ends_with_its_error(api: ServedApi, client: openai.OpenAI) -> None:
    error = JobError("invalid_image", "No picture", "input[0]")
    with (
        api.worker.serving(lambda job: api.worker.fail(job, error)),
        client.responses.create(model=MODEL, input="Hi", stream=True) as stream,
    ):
        events = list(stream)
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None and events[-1].response.error.code == "invalid_image"


def test_each_event_is_one_write(api: ServedApi) -> None:
    with api.worker.serving(), api.client() as http:
        body = {"model": MODEL, "input": "Hi", "stream": True}
        with http.stream("POST", "/v1/responses", json=body) as answer:
            chunks = list(answer.iter_raw())
    text = b"".join(chunks).decode()
    assert "[DONE]" not in text
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


def test_stream_goes_on_from_the_row_when_redis_has_forgotten(
    api: ServedApi, client: openai.OpenAI, http: httpx2.Client
) -> None:
    made = client.responses.create(model=MODEL, input="Hi", background=True)
    job = api.worker.claim(made.id)
    api.worker.say(job, TOKENS[:2])
    with redis.Redis.from_url(api.services.redis_url) as forgetful:
        keys = [key for key in forgetful.scan_iter(f"{api.services.redis_prefix}*") if made.id.encode() in key]
        assert keys
        forgetful.delete(*keys)
    api.worker.store.cancel(made.id)
    api.worker.store.extend_tokens(made.id, TOKENS[:1])
    events = read(http, made.id)
    assert [event["delta"] for event in events if "delta" in event] == ["A "]
    assert events[-1]["response"]["status"] == "cancelled"


async def test_async_helper_follows_to_the_end(api: ServedApi) -> None:
    async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0) as client:
        with api.worker.serving(lambda job: api.worker.answer(job, (Token(1, "Hi"),))):
            stream = client.responses.stream(model=MODEL, input="Hi", background=True)
            async with stream as events:
                final = await events.get_final_response()
    assert final.output_text == "Hi"
