"""The rules that Open Responses sets for a Responses API, case by case, over plain HTTP: which keys a response has, of
which types, and how a stream is framed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema
import pytest

from tests.clients.live import Live
from tests.clients.suite.bodies import WEATHER, asking, concluding, looking

pytestmark = pytest.mark.acceptance

TEXT, WHOLE, REAL, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def keyed(**keys: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(keys), "properties": keys}


PART = keyed(type={"const": "output_text"}, text=TEXT, annotations={"type": "array"}, logprobs={"type": "array"})
STATUS = {"enum": ["in_progress", "completed", "incomplete"]}
MESSAGE = keyed(
    type={"const": "message"},
    id=TEXT,
    role={"const": "assistant"},
    status=STATUS,
    content={"type": "array", "items": PART},
)
CALL = keyed(type={"const": "function_call"}, id=TEXT, call_id=TEXT, name=TEXT, arguments=TEXT, status=STATUS)
USAGE = keyed(
    input_tokens=WHOLE,
    output_tokens=WHOLE,
    total_tokens=WHOLE,
    input_tokens_details=keyed(cached_tokens=WHOLE),
    output_tokens_details=keyed(reasoning_tokens=WHOLE),
)
RESPONSE = keyed(
    id=TEXT,
    object={"const": "response"},
    created_at=WHOLE,
    completed_at=maybe(WHOLE),
    status={"enum": ["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]},
    incomplete_details=maybe(keyed(reason=TEXT)),
    model=TEXT,
    previous_response_id=maybe(TEXT),
    instructions=maybe(TEXT),
    output={"type": "array", "items": {"anyOf": [MESSAGE, CALL]}},
    error=maybe(keyed(code=TEXT, message=TEXT)),
    tools={"type": "array"},
    tool_choice={"type": ["string", "object"]},
    truncation={"enum": ["auto", "disabled"]},
    parallel_tool_calls=FLAG,
    text=keyed(format=keyed(type=TEXT)),
    top_p=REAL,
    presence_penalty=REAL,
    frequency_penalty=REAL,
    top_logprobs=WHOLE,
    temperature=REAL,
    reasoning=maybe({"type": "object"}),
    usage=maybe(USAGE),
    max_output_tokens=maybe(WHOLE),
    max_tool_calls=maybe(WHOLE),
    store=FLAG,
    background=FLAG,
    service_tier=TEXT,
    metadata={"type": "object"},
    safety_identifier=maybe(TEXT),
    prompt_cache_key=maybe(TEXT),
)
TOOL = {"type": "function", "name": "weather", "description": "The sky over a city.", "parameters": WEATHER}


@pytest.fixture
def http(live: Live) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {live.key}"}
    with httpx2.Client(base_url=live.base_url, headers=headers, timeout=60) as it:
        yield it


def created(http: httpx2.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post("/responses", json=body)
    assert answer.status_code == 200, answer.text
    response: dict[str, Any] = answer.json()
    jsonschema.validate(response, RESPONSE)
    assert response["output"]
    return response


def streamed(http: httpx2.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events; each is whole in one piece of the answer, for the suite's reader starts afresh with every piece."""
    events = []
    with http.stream("POST", "/responses", json=body | {"stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for block in "".join(answer.iter_text()).split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in fields and fields["data"] != "[DONE]":
                events.append(json.loads(fields["data"]))
                assert fields["event"] == events[-1]["type"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        if "response" in event:
            jsonschema.validate(event["response"], RESPONSE)
    return events


def kinds_between(events: list[dict[str, Any]]) -> list[str]:
    """Types in their order, equal neighbours once."""
    kinds = [event["type"].removeprefix("response.") for event in events]
    return [kind for place, kind in enumerate(kinds) if place == 0 or kinds[place - 1] != kind]


def test_basic_response_is_one_message_of_text(http: httpx2.Client) -> None:
    response = created(http, concluding())
    assert (response["status"], response["error"]) == ("completed", None)
    assert [item["type"] for item in response["output"]] == ["message"]
    assert response["output"][0]["content"][0]["text"]


def test_streaming_response_opens_grows_and_closes_its_message(http: httpx2.Client) -> None:
    events = streamed(http, concluding())
    assert kinds_between(events) == [
        *("created", "queued", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    told = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert told == events[-1]["response"]["output"][0]["content"][0]["text"]
    ids = {event["item_id"] for event in events if "item_id" in event}
    assert ids == {events[-1]["response"]["output"][0]["id"]}


def test_system_prompt_is_taken_as_an_item_and_as_instructions(http: httpx2.Client) -> None:
    items = [{"type": "message", "role": "system", "content": "Be brief."}, {"role": "user", "content": "Talk."}]
    as_item = created(http, asking() | {"input": items})
    as_field = created(http, asking(instructions="Be brief."))
    assert as_field["instructions"] == "Be brief."
    assert as_item["usage"]["input_tokens"] == as_field["usage"]["input_tokens"]


def test_image_input_as_a_data_url_is_seen(http: httpx2.Client) -> None:
    seen, blind = created(http, looking()), created(http, asking("What is it?"))
    assert seen["usage"]["input_tokens"] > blind["usage"]["input_tokens"]


def test_multi_turn_conversation_is_sent_back_as_items(http: httpx2.Client) -> None:
    first = created(http, asking())
    turns = [{"role": "user", "content": "Talk."}, *first["output"], {"role": "user", "content": "Go on."}]
    second = created(http, asking() | {"input": turns})
    chained = created(http, asking("Go on.", previous_response_id=first["id"]))
    assert second["usage"]["input_tokens"] == chained["usage"]["input_tokens"]
    assert second["output"][0]["content"] == chained["output"][0]["content"]


def test_tool_calling_gives_a_call_with_its_arguments(http: httpx2.Client) -> None:
    response = created(http, calling())
    (call,) = [item for item in response["output"] if item["type"] == "function_call"]
    assert call["name"] == "weather"
    jsonschema.validate(json.loads(call["arguments"]), WEATHER)
    assert [tool["name"] for tool in response["tools"]] == ["weather"]


def test_tool_calling_streams_the_arguments(http: httpx2.Client) -> None:
    events = streamed(http, calling())
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert "".join(deltas) == done["arguments"]
    (call,) = [item for item in events[-1]["response"]["output"] if item["type"] == "function_call"]
    assert call["arguments"] == done["arguments"]


def calling() -> dict[str, Any]:
    return asking("Sky?", tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_output_tokens=160)
