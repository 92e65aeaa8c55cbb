"""Responses through the official client: whole, streamed, in the background, resumed, chained."""

import json
import time

import openai
import pytest
from openai.types.responses import Response

from tests.clients.suite.bodies import WEATHER, asking, concluding, looking
from tests.clients.suite.lacking import needs
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.acceptance


def ended(client: openai.OpenAI, response_id: str) -> Response:
    def over() -> Response | None:
        response = client.responses.retrieve(response_id)
        return response if response.status not in ("queued", "in_progress") else None

    return eventually("the response has ended", over)


def test_response_comes_whole(client: openai.OpenAI) -> None:
    response = client.responses.create(**looking(metadata={"shelf": "7"}))
    assert (response.object, response.status) == ("response", "incomplete")
    assert response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text and response.metadata == {"shelf": "7"}
    assert response.usage is not None and response.usage.output_tokens == 12
    assert response._request_id


def test_response_streams_what_it_gives_whole(client: openai.OpenAI) -> None:
    whole = client.responses.create(**concluding())
    events = list(client.responses.create(**concluding(), stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    told = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert told == whole.output_text == events[-1].response.output_text
    assert whole.status == "completed"
    assert json.loads(told)["city"] in WEATHER["properties"]["city"]["enum"]


def test_stream_helper_gives_the_final_response(client: openai.OpenAI) -> None:
    with client.responses.stream(**concluding()) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert final.output_text == client.responses.create(**concluding()).output_text


def test_background_response_is_polled_to_its_end(client: openai.OpenAI) -> None:
    accepted = client.responses.create(**concluding(), background=True)
    assert accepted.status in ("queued", "in_progress") and accepted.background
    response = ended(client, accepted.id)
    assert response.status == "completed"
    assert response.output_text == client.responses.create(**concluding()).output_text


def test_background_stream_resumes_behind_every_event(client: openai.OpenAI) -> None:
    stream = client.responses.create(**concluding(), background=True, stream=True)
    events = [event.to_dict() for event in stream]
    response_id = events[0]["response"]["id"]
    assert [event.to_dict() for event in client.responses.retrieve(response_id, stream=True)] == events
    for place in range(len(events) - 1):
        rest = client.responses.retrieve(response_id, stream=True, starting_after=place)
        assert [event.to_dict() for event in rest] == events[place + 1 :]


def test_stream_that_breaks_goes_on_where_it_broke(client: openai.OpenAI) -> None:
    seen = []
    with client.responses.create(**asking(max_output_tokens=60), background=True, stream=True) as stream:
        for event in stream:
            seen.append(event.to_dict())
            if len(seen) == 9:
                break
    response_id = seen[0]["response"]["id"]
    rest = client.responses.retrieve(response_id, stream=True, starting_after=seen[-1]["sequence_number"])
    seen += [event.to_dict() for event in rest]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen == [event.to_dict() for event in client.responses.retrieve(response_id, stream=True)]


def test_stream_helper_follows_a_background_response_by_its_id(client: openai.OpenAI) -> None:
    accepted = client.responses.create(**concluding(), background=True, stream=True)
    response_id = next(iter(accepted)).response.id
    accepted.close()
    with client.responses.stream(response_id=response_id, starting_after=3) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert numbers[0] == 4
    assert final.id == response_id


def test_cancelled_response_stays_cancelled_and_its_stream_ends(client: openai.OpenAI) -> None:
    body = asking(max_output_tokens=3000)
    accepted = client.responses.create(**body, background=True, extra_body={"ignore_eos": True})
    eventually("it runs", lambda: client.responses.retrieve(accepted.id).status == "in_progress")
    began = time.monotonic()
    assert client.responses.cancel(accepted.id).status == "cancelled"
    assert time.monotonic() - began < 30
    assert client.responses.cancel(accepted.id).status == "cancelled"
    last = list(client.responses.retrieve(accepted.id, stream=True))[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "cancelled")


def test_only_background_responses_can_be_cancelled(client: openai.OpenAI) -> None:
    response = client.responses.create(**asking())
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.cancel(response.id)
    assert refused.value.request_id


def test_turns_are_chained_by_the_previous_responses_id(client: openai.OpenAI) -> None:
    first = client.responses.create(**looking(instructions="Be brief."))
    second = client.responses.create(**asking("And now?"), previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage is not None and first.usage is not None
    assert second.usage.input_tokens > first.usage.output_tokens


def test_input_items_are_listed_page_by_page(client: openai.OpenAI) -> None:
    items = [{"role": "user", "content": text} for text in ("one", "two", "three")]
    response = client.responses.create(**asking() | {"input": items})
    listed = list(client.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [item.content[0].text for item in listed] == ["one", "two", "three"]


def test_deleted_response_is_gone(client: openai.OpenAI) -> None:
    response = client.responses.create(**asking())
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_another_tenants_response_is_not_found(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    response = client.responses.create(**asking())
    with pytest.raises(openai.NotFoundError):
        stranger.responses.retrieve(response.id)


def test_input_tokens_are_those_that_a_response_uses(client: openai.OpenAI) -> None:
    needs(client, "responses.input_tokens")
    body = looking()
    counted = client.responses.input_tokens.count(model=body["model"], input=body["input"])
    usage = client.responses.create(**body).usage
    assert usage is not None and counted.input_tokens == usage.input_tokens
