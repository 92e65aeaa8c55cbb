"""A worker dies while a function call streams out of it: the client's stream goes on, and gets the one call whole."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.acceptance.bodies import chat
from tests.acceptance.system import MODEL, Process, System
from tests.fixtures.tensorrt_llm import Serving

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

LETTERS = 1_000
STORY = {
    "type": "object",
    "properties": {"story": {"type": "string", "minLength": LETTERS, "maxLength": LETTERS}},
    "required": ["story"],
    "additionalProperties": False,
}
"""Arguments that are long enough to be killed in the middle of."""
FUNCTION = {"name": "tell", "parameters": STORY}
ASKED = "Tell a long story."
SEEN = 20
"""Characters of the arguments after which the worker is killed: a piece has one token or, from a fast worker, many."""


@dataclass
class Heard:
    """What one client's stream told of calls."""

    job_id: str = ""
    starts: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


Door = Callable[[openai.OpenAI], Iterator[Heard]]
"""Asks for the call as a stream, and yields what has been heard after each piece of the arguments and at the end."""


def by_chat(client: openai.OpenAI) -> Iterator[Heard]:
    heard = Heard()
    for chunk in client.chat.completions.create(**body(), stream=True):
        heard.job_id = chunk.id
        for choice in chunk.choices:
            assert not choice.delta.content
            assert choice.finish_reason in (None, "tool_calls")
            for call in choice.delta.tool_calls or []:
                assert call.index == 0 and call.function is not None
                if call.id is not None:
                    heard.starts.append((call.id, call.function.name or ""))
                if call.function.arguments:
                    heard.pieces.append(call.function.arguments)
                    yield heard
    yield heard


def by_responses(client: openai.OpenAI) -> Iterator[Heard]:
    heard = Heard()
    tool = {"type": "function", "strict": True, **FUNCTION}
    asked: Any = {"model": MODEL, "input": ASKED, "temperature": 0, "max_output_tokens": 2500, "tools": [tool]}
    numbers = []
    for event in client.responses.create(**asked, tool_choice="required", parallel_tool_calls=False, stream=True):
        numbers.append(event.sequence_number)
        if event.type == "response.created":
            heard.job_id = event.response.id
        elif event.type == "response.output_item.added":
            heard.starts.append((event.item.call_id, event.item.name))
        elif event.type == "response.function_call_arguments.delta":
            heard.pieces.append(event.delta)
            yield heard
        elif event.type == "response.function_call_arguments.done":
            assert event.arguments == heard.arguments
        elif event.type == "response.completed":
            (item,) = event.response.output
            assert (item.type, item.call_id, item.name, item.arguments) == (
                "function_call", *heard.starts[0], heard.arguments,
            )  # fmt: skip
    assert numbers == list(range(len(numbers)))
    yield heard


def body() -> dict[str, Any]:
    tool = {"type": "function", "function": FUNCTION | {"strict": True}}
    return chat(ASKED, max_tokens=2500, tools=[tool], tool_choice="required", parallel_tool_calls=False)


def worker_of(system: System) -> Process:
    return next(process for process in system.processes if process.name == "worker")


@pytest.mark.parametrize("door", [by_chat, by_responses])
def test_worker_killed_in_the_middle_of_a_call_the_client_gets_the_one_call_whole(
    running: System, shared: System, serving: Serving, door: Door
) -> None:
    whole = shared.wait(shared.submit(body()))
    if not serving.rules:
        assert whole["error"]["code"] == "invalid_json_schema" and "required tool" in whole["error"]["message"]
        return
    undisturbed = whole["tool_calls"]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        stream = door(client)
        for heard in stream:
            if len(heard.arguments) >= SEEN:
                break
        worker_of(running).kill()
        half = heard.arguments
        running.start_worker()
        heard = list(stream)[-1]
    assert len(half) < len(heard.arguments), "the call was over before the kill"
    assert len(json.loads(heard.arguments)["story"]) == LETTERS
    ((call_id, name),) = heard.starts
    (whole,) = undisturbed
    assert (name, heard.arguments) == (whole["function"]["name"], whole["function"]["arguments"])

    job = running.job(heard.job_id)
    assert [attempt["end"] for attempt in job["attempts"]] == ["lease_expired", "finished"]
    (recorded,) = job["tool_calls"]
    assert (recorded["id"], recorded["function"]) == (call_id, whole["function"])
    reader = running.reader(heard.job_id)
    reader.wait()
    assert reader.sequences() == list(range(len(reader.events)))
    assert reader.tokens() == job["usage"]["completion_tokens"]
