"""Functions that a model calls, through the official client."""

import json

import openai
import pytest

from tests.clients.suite.bodies import WEATHER, asking, chat

pytestmark = pytest.mark.acceptance

TOOL = {"type": "function", "function": {"name": "weather", "description": "The sky.", "parameters": WEATHER}}


def test_chat_calls_the_function_that_it_must_and_takes_its_result(client: openai.OpenAI) -> None:
    body = chat("Sky?", tools=[TOOL], parallel_tool_calls=False, max_completion_tokens=160)
    answer = client.chat.completions.create(**body, tool_choice="required").choices[0]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.tool_calls
    call = answer.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in WEATHER["properties"]["city"]["enum"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "blue"}
    turns = [*body["messages"], answer.message.to_dict(), result]
    after = client.chat.completions.create(**body | {"messages": turns, "max_completion_tokens": 8})
    assert after.usage is not None and after.usage.completion_tokens


def test_chat_streams_the_call_that_it_gives_whole(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    body = chat("Sky?", tools=[TOOL], tool_choice=named, parallel_tool_calls=False, max_completion_tokens=160)
    whole = client.chat.completions.create(**body).choices[0].message
    name, arguments = "", ""
    for chunk in client.chat.completions.create(**body, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            assert delta.function is not None
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert whole.tool_calls
    assert (name, arguments) == (whole.tool_calls[0].function.name, whole.tool_calls[0].function.arguments)


def test_response_calls_the_function_that_it_must_and_takes_its_result(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
    body = asking("Weather?", tools=[tool], parallel_tool_calls=False, max_output_tokens=160)
    response = client.responses.create(**body, tool_choice="required")
    call = next(item for item in response.output if item.type == "function_call")
    assert call.name == "weather"
    assert json.loads(call.arguments)["city"] in WEATHER["properties"]["city"]["enum"]
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "blue"}'}
    after = client.responses.create(
        **body | {"input": [answer], "max_output_tokens": 8}, previous_response_id=response.id
    )
    assert after.previous_response_id == response.id
    assert after.usage is not None and response.usage is not None
    assert after.usage.input_tokens > response.usage.input_tokens
