"""Function tools through OpenAI's own client: declared, called whole and as a stream, answered, and refused by name."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from jobs.job import FinishReason, Job, Token
from jobs.request import Message, Role, TextPart
from jobs.tools import Tool, ToolCall, ToolFormat, ToolMode, ToolUse
from tests.fixtures.api import MODEL, ServedApi

pytestmark = pytest.mark.integration

ASK: Any = [{"role": "user", "content": "Weather in Paris?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": SCHEMA}}
NOW: Any = {"type": "function", "function": {"name": "now"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def spelled(*texts: str) -> tuple[Token, ...]:
    """A token for each few letters of each choice's text; the choices take turns."""
    cut = [[text[at : at + 5] for at in range(0, len(text), 5)] for text in texts]
    turns = range(max(map(len, cut)))
    return tuple(Token(7, own[n], choice=c) for n in turns for c, own in enumerate(cut) if n < len(own))


def saying(api: ServedApi, jobs: list[Job], *texts: str) -> Callable[[Job], object]:
    def serve(job: Job) -> None:
        jobs.append(job)
        tokens = spelled(*texts)
        for place, token in enumerate(tokens):
            api.worker.say(job, [token], place)
        api.worker.finish(job, tokens, each=(FinishReason.STOP,) * len(texts))

    return serve


def test_call_is_a_tool_call_whole_and_as_a_stream(api: ServedApi, client: openai.OpenAI) -> None:
    jobs: list[Job] = []
    with api.worker.serving(saying(api, jobs, "I look.\n" + CALL)):
        whole = client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER, NOW])
        with client.chat.completions.stream(model=MODEL, messages=ASK, tools=[WEATHER, NOW]) as stream:
            streamed = stream.get_final_completion()
    for answer in (whole, streamed):
        (choice,) = answer.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
        (call,) = choice.message.tool_calls or ()
        assert (call.type, call.function.name, call.function.arguments) == (
            "function",
            "get_weather",
            '{"city": "Paris"}',
        )
        assert call.id.startswith("call_")
    assert jobs[0].request.tools == ToolUse(
        ToolFormat.QWEN, (Tool("get_weather", "d", json.dumps(SCHEMA, separators=(",", ":"))), Tool("now"))
    )


def test_answer_without_text_has_null_content(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(saying(api, [], CALL)):
        answer = client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER])
    assert answer.choices[0].message.content is None
    assert answer.choices[0].message.tool_calls is not None


def test_each_choice_has_its_own_calls(api: ServedApi, client: openai.OpenAI) -> None:
    texts = (f"{CALL}\n{CALL}", "Sunny, <b>I</b> think.")
    with api.worker.serving(saying(api, [], *texts)):
        whole = client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER], n=2)
        chunks = list(client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER], n=2, stream=True))
    first, second = whole.choices
    assert len({call.id for call in first.message.tool_calls or ()}) == 2
    assert (first.finish_reason, second.finish_reason) == ("tool_calls", "stop")
    assert (second.message.content, second.message.tool_calls) == (texts[1], None)
    deltas = [(c.index, c.delta) for chunk in chunks for c in chunk.choices]
    assert "".join(delta.content or "" for index, delta in deltas if index == 1) == texts[1]
    calls = [call for index, delta in deltas if index == 0 for call in delta.tool_calls or ()]
    assert [call.index for call in calls if call.id] == [0, 1]
    assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None, "tool_calls", "stop"}


def test_required_call_streams_its_arguments_as_they_come(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(saying(api, [], CALL)):
        stream = client.chat.completions.create(
            model=MODEL, messages=ASK, tools=[WEATHER], tool_choice="required", stream=True
        )
        deltas = [c.delta for chunk in stream for c in chunk.choices]
    pieces = [call.function.arguments or "" for d in deltas for call in d.tool_calls or () if call.function]
    assert len(pieces) > 3
    assert "".join(pieces) == '{"city": "Paris"}'


def test_results_reach_the_job_in_the_order_of_their_calls(api: ServedApi, client: openai.OpenAI) -> None:
    jobs: list[Job] = []
    with api.worker.serving(saying(api, jobs, f"{CALL}\n{CALL}")):
        answer = client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER])
    said = answer.choices[0].message
    first, second = said.tool_calls or ()
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": call.id} for call in (second, first)]
    with api.worker.serving(saying(api, jobs, "Sunny.")):
        client.chat.completions.create(model=MODEL, messages=[*ASK, said.to_dict(), *results], tools=[WEATHER])
    arguments = '{"city": "Paris"}'
    assert jobs[1].request.messages[1:] == (
        Message(Role.ASSISTANT, (), tuple(ToolCall(call.id, "get_weather", arguments) for call in (first, second))),
        Message(Role.TOOL, (TextPart(first.id),), call_id=first.id),
        Message(Role.TOOL, (TextPart(second.id),), call_id=second.id),
    )


@pytest.mark.parametrize(
    ("choice", "mode", "only"),
    [
        ("none", ToolMode.NONE, ()),
        ("auto", ToolMode.AUTO, ()),
        ("required", ToolMode.REQUIRED, ()),
        ({"type": "function", "function": {"name": "now"}}, ToolMode.REQUIRED, ("now",)),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]},
            },
            ToolMode.AUTO,
            ("now",),
        ),
    ],
)
def test_choice_reaches_the_job(api: ServedApi, http: httpx2.Client, choice: Any, mode: ToolMode, only: Any) -> None:
    body = {"model": MODEL, "messages": ASK, "tools": [WEATHER, NOW], "tool_choice": choice}
    made = http.post("/v1/jobs", json=body).json()
    job = api.worker.claim(made["id"])
    api.worker.answer(job)
    assert job.request.tools is not None
    assert (job.request.tools.mode, job.request.tools.only) == (mode, only)


def test_job_shows_calls_apart_from_its_output(api: ServedApi, http: httpx2.Client) -> None:
    made = http.post("/v1/jobs", json={"model": MODEL, "messages": ASK, "tools": [WEATHER]}).json()
    assert made["tool_calls"] is None
    job = api.worker.claim(made["id"])
    api.worker.answer(job, spelled("So: " + CALL))
    read = http.get(f"/v1/jobs/{made['id']}").json()
    assert read["output"] == "So:"
    (call,) = read["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}


def called(*ids: str) -> dict[str, Any]:
    calls = [{"id": i, "type": "function", "function": {"name": "now", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "1"}


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **fields}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "custom"}]}, "tools[0].type", "invalid_value"),
    ({"tools": [function(name="no spaces")]}, "tools[0].function.name", "invalid_value"),
    ({"tools": [NOW, NOW]}, "tools", "invalid_value"),
    ({"tools": [NOW] * 129}, "tools", "invalid_value"),
    ({"tools": [function(description="x" * 200_000)]}, "tools", "invalid_value"),
    (
        {"tools": [function(parameters={"type": "array"})]},
        "tools[0].function.parameters",
        "invalid_function_parameters",
    ),
    (
        {"tools": [function(strict=True, parameters={"type": "object", "not": {}})]},
        "tools[0].function.parameters",
        "invalid_json_schema",
    ),
    (
        {"tools": [NOW, function(parameters={"type": "object", "not": {}})], "tool_choice": "required"},
        "tools[1].function.parameters",
        "invalid_json_schema",
    ),
    ({"tools": [NOW], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    (
        {"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "later"}}},
        "tool_choice",
        "invalid_value",
    ),
    ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
    ({"parallel_tool_calls": True}, "parallel_tool_calls", "invalid_value"),
    ({"tools": [NOW], "tool_choice": "required", "stop": "x"}, "stop", "invalid_value"),
    ({"tools": [NOW], "tool_choice": "required", "min_tokens": 2}, "min_tokens", "invalid_value"),
    ({"tools": [NOW], "tool_choice": "required", "ignore_eos": True}, "ignore_eos", "invalid_value"),
    ({"tools": [NOW], "parallel_tool_calls": False, "min_tokens": 2}, "min_tokens", "invalid_value"),
    ({"tools": [function(strict=True)], "ignore_eos": True}, "ignore_eos", "invalid_value"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"function_call": "auto"}, "function_call", "unsupported_parameter"),
    ({"messages": [*ASK, result("a")]}, "messages[1]", "invalid_value"),
    ({"messages": [*ASK, called("a")]}, "messages[1]", "invalid_value"),
    ({"messages": [*ASK, called("a"), result("b")]}, "messages[2]", "invalid_value"),
    ({"messages": [*ASK, called("a", "a"), result("a")]}, "messages[1]", "invalid_value"),
    ({"messages": [*ASK, called("a", "b"), result("a")]}, "messages[1]", "invalid_value"),
    ({"messages": [*ASK, called("a"), result("a"), result("a")]}, "messages[3]", "invalid_value"),
    ({"messages": [*ASK, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id", "missing_required_parameter"),
    ({"messages": [*ASK, {"role": "assistant"}]}, "messages[1]", "invalid_value"),
    ({"messages": [*ASK, {"role": "assistant", "tool_calls": []}]}, "messages[1].tool_calls", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED)
def test_what_does_not_fit_together_is_refused_with_its_place(
    http: httpx2.Client, fields: dict[str, Any], param: str, code: str
) -> None:
    answer = http.post("/v1/chat/completions", json={"model": MODEL, "messages": ASK, **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"].startswith(param), error
    assert error["code"] == code
