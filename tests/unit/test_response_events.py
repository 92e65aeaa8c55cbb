"""The events of a response's stream, rendered from logs without any service."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.responses.door import Door
from api.responses.events import ResponseEvents
from api.responses.object import response_object
from jobs.events import Ended, Event, log_of
from jobs.job import FinishReason, Job, JobError, JobKind, JobState, Origin, Priority, Timeline, Token, Usage
from jobs.tools import Tool, ToolFormat, ToolUse
from tests.fixtures.jobs import chat_request

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the sky"}}\n</tool_call>'
LOOK = ToolUse(ToolFormat.QWEN, (Tool("look"),))
ENDS = tuple(state for state in JobState if state.terminal)


def job_with(
    texts: Sequence[str],
    state: JobState = JobState.COMPLETED,
    tools: ToolUse | None = None,
    logprobs: int | None = None,
    claimed: bool = True,
) -> Job:
    logprob = None if logprobs is None else -0.5
    request = chat_request()
    return Job(
        id="resp_0123",
        tenant="default",
        kind=JobKind.RESPONSE,
        model="tiny",
        priority=Priority.BACKGROUND,
        state=state,
        request=type(request)(request.messages, request.sampling, tools=tools, logprobs=logprobs),
        metadata={},
        deadline=None,
        max_attempts=3,
        attempt=1,
        losses=0,
        worker=None,
        tokens=tuple(Token(n, text, logprob) for n, text in enumerate(texts)),
        usage=Usage(9, len(texts)) if state in (JobState.COMPLETED, JobState.INCOMPLETE) else None,
        finish_reason=FinishReason.LENGTH if state is JobState.INCOMPLETE else FinishReason.STOP,
        error=JobError("server_error", "broken") if state is JobState.FAILED else None,
        timeline=Timeline(NOW, NOW if claimed else None, NOW, NOW, NOW if state.terminal else None),
        origin=Origin(door=Door(input=()).kept()),
    )


def events_of(job: Job, log: Sequence[Event] | None = None) -> list[dict[str, Any]]:
    events = ResponseEvents(job)
    shown: list[dict[str, Any]] = []
    for event in log if log is not None else log_of(job):
        # As bytes at once: what was sent cannot change any more.
        shown += [json.loads(json.dumps(entry)) for entry in events.of(event, job)]
    return shown


def types_of(job: Job) -> list[str]:
    return [event["type"] for event in events_of(job)]


HEAD = ["response.created", "response.queued", "response.in_progress"]
OPENED = ["response.output_item.added", "response.content_part.added"]
CLOSED = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


def test_text_grows_between_what_opens_and_what_closes_it() -> None:
    events = events_of(job_with(["A ", "", "bus"]))
    deltas = ["response.output_text.delta"] * 2
    assert [event["type"] for event in events] == [*HEAD, *OPENED, *deltas, *CLOSED, "response.completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["delta"] for event in events if "delta" in event] == ["A ", "bus"]
    assert events[3]["item"] == {
        "id": "msg_0123_0",
        "type": "message",
        "role": "assistant",
        "content": [],
        "status": "in_progress",
    }
    assert events[4]["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert events[7]["text"] == events[8]["part"]["text"] == "A bus"
    assert events[9]["item"] == events[10]["response"]["output"][0]
    assert (events[9]["item"]["status"], events[10]["response"]["status"]) == ("completed", "completed")


def test_lifecycle_events_show_the_response_as_it_was_then() -> None:
    created, queued, in_progress = events_of(job_with(["A"]))[:3]
    assert [e["response"]["status"] for e in (created, queued, in_progress)] == ["queued", "queued", "in_progress"]
    for event in (created, queued, in_progress):
        shown = event["response"]
        assert (shown["output"], shown["usage"], shown["error"], shown["completed_at"]) == ([], None, None, None)


def test_answer_of_nothing_is_one_empty_message() -> None:
    assert types_of(job_with([""])) == [*HEAD, *OPENED, *CLOSED, "response.completed"]


@pytest.mark.parametrize("state", ENDS)
def test_every_end_closes_what_is_open_and_comes_last(state: JobState) -> None:
    events = events_of(job_with(["A ", "bus"], state))
    last = {JobState.COMPLETED: "response.completed", JobState.FAILED: "response.failed"}
    assert events[-1]["type"] == last.get(state, "response.incomplete")
    assert events[-1]["response"]["status"] == state.value
    assert [event["type"] for event in events[-4:-1]] == CLOSED
    status = "completed" if state is JobState.COMPLETED else "incomplete"
    assert events[-2]["item"]["status"] == status
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED])
def test_job_that_ends_before_it_began_has_no_output(state: JobState) -> None:
    events = events_of(job_with([], state, claimed=False))
    last = "response.failed" if state is JobState.FAILED else "response.incomplete"
    assert [event["type"] for event in events] == ["response.created", "response.queued", last]
    assert events[-1]["response"]["output"] == []


def test_call_between_texts_is_an_item_of_its_own() -> None:
    events = events_of(job_with(["Let me ", "look.", "\n", CALL[:30], CALL[30:], "\n", "Done"], tools=LOOK))
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [(item["type"], item["id"]) for item in added] == [
        ("message", "msg_0123_0"),
        ("function_call", "fc_0123_1"),
        ("message", "msg_0123_2"),
    ]
    call = events[-1]["response"]["output"][1]
    assert call == {
        "id": "fc_0123_1",
        "type": "function_call",
        "call_id": added[1]["call_id"],
        "name": "look",
        "arguments": '{"at": "the sky"}',
        "status": "completed",
    }
    done = next(event for event in events if event["type"] == "response.function_call_arguments.done")
    assert (done["arguments"], done["name"], done["item_id"]) == (call["arguments"], "look", call["id"])
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call["arguments"]
    texts = [
        item["content"][0]["text"].strip() for item in events[-1]["response"]["output"] if item["type"] == "message"
    ]
    assert texts == ["Let me look.", "Done"]


def test_log_probabilities_of_texts_beside_calls_are_those_of_the_texts() -> None:
    job = job_with(["Let ", "me.", CALL, ""], tools=LOOK, logprobs=0)
    message, call = response_object(job)["output"]
    assert [entry["token"] for entry in message["content"][0]["logprobs"]] == ["Let ", "me."]
    assert "logprobs" not in call


WORDS = st.sampled_from(
    ["A ", "", "bus", "<", "tool", "_call>", '{"name": "look", ', '"arguments": {"a": 1}}', "\n", CALL]
)
JOBS = st.builds(
    job_with,
    texts=st.lists(WORDS, max_size=12),
    state=st.sampled_from(ENDS),
    tools=st.sampled_from([None, LOOK]),
    logprobs=st.sampled_from([None, 0]),
)


@settings(deadline=None)
@given(JOBS, st.data())
def test_log_read_in_any_pieces_gives_the_same_events(job: Job, data: st.DataObject) -> None:
    """As a reader gets them: some of the log from the row when it comes, while it grows, or after it has ended."""
    whole = events_of(job)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    log = log_of(job)
    cut = data.draw(st.integers(0, len(log)))
    running = replace(job, state=JobState.IN_PROGRESS, tokens=job.tokens[: max(0, cut - 2)], usage=None, error=None)
    events = ResponseEvents(running)
    first = [shown for event in log[:cut] for shown in events.of(event, job)]
    rest = [shown for event in log[cut:] for shown in events.of(event, job)]
    assert json.loads(json.dumps(first + rest)) == whole


@settings(deadline=None)
@given(JOBS)
def test_items_of_the_stream_are_those_of_the_object(job: Job) -> None:
    events = events_of(job)
    items: dict[int, dict[str, Any]] = {}
    for event in events:
        index = event.get("output_index")
        match event["type"]:
            case "response.output_item.added":
                assert index == len(items) and index not in items
                items[index] = event["item"]
            case "response.content_part.added":
                items[index]["content"].append(event["part"])
            case "response.output_text.delta":
                items[index]["content"][0]["text"] += event["delta"]
                items[index]["content"][0]["logprobs"] += event["logprobs"]
            case "response.function_call_arguments.delta":
                items[index]["arguments"] += event["delta"]
            case "response.output_item.done":
                assert {**items[index], "status": event["item"]["status"]} == event["item"]
                items[index] = event["item"]
        if "item_id" in event:
            assert event["item_id"] == items[index]["id"]
    assert list(items.values()) == events[-1]["response"]["output"] == response_object(job)["output"]
    assert isinstance(log_of(job)[-1], Ended)
