"""What responses cannot be asked, by name, and values that ask for nothing."""

from typing import Any

import httpx2
import pytest

from tests.fixtures.responses import BODY, PIXEL, content, refused

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"reasoning": {"effort": "high"}}, "reasoning", "unsupported_parameter"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
        ({"service_tier": "flex"}, "service_tier", "unsupported_parameter"),
        ({"max_tool_calls": 3}, "max_tool_calls", "unsupported_parameter"),
        ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key", "unsupported_parameter"),
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention", "unsupported_parameter"),
        ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options", "unsupported_parameter"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "unsupported_parameter"),
        ({"background_options": {"completion_window": "8h"}}, "background_options", "unsupported_parameter"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs", "unsupported_parameter"),
        ({"image": {"context_compression": "enabled"}}, "image", "unsupported_parameter"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "unsupported_parameter"),
        ({"include": ["file_search_call.results"]}, "include", "unsupported_parameter"),
        ({"include": ["message.input_image.image_url"]}, "include", "unsupported_parameter"),
        ({"include": ["nonsense"]}, "include", "invalid_value"),
        ({"stream_options": {"include_obfuscation": True}, "stream": True}, "stream_options.include_obfuscation",
         "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "unsupported_parameter"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[0]", "unsupported_parameter"),
        ({"input": [{"type": "nonsense"}]}, "input[0].type", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 3}, "input", "invalid_type"),
        (content({"type": "input_audio", "data": ""}), "input[0].content[0]", "unsupported_parameter"),
        (content({"type": "input_file", "file_data": "x"}), "input[0].content[0].file_data", "unsupported_parameter"),
        (content({"type": "input_file", "file_url": "x"}), "input[0].content[0].file_url", "unsupported_parameter"),
        (content({"type": "input_file", "file_id": "file-0"}), "input[0].content[0].file_id", "image_file_not_found"),
        (content({"type": "input_image", "file_id": "file-0"}), "input[0].content[0].file_id", "image_file_not_found"),
        (content({"type": "input_image", "image_url": PIXEL, "detail": "original"}), "input[0].content[0].detail",
         "unsupported_parameter"),
        (content({"type": "input_image"}), "input[0].content[0]", "invalid_value"),
        (content({"type": "input_image", "image_url": "ftp://x"}), "input[0].content[0].image_url",
         "invalid_image_url"),
        (content({"type": "input_image", "image_url": PIXEL}, role="system"), "input[0].content[0]", "invalid_value"),
        (content({"type": "input_text", "text": "Hi"}, role="assistant"), "input[0].content[0].type", "invalid_value"),
        (content({"type": "output_text", "text": "Hi"}), "input[0].content[0].type", "invalid_value"),
        (content({"type": "input_text", "text": "<image><image>"}, {"type": "input_image", "image_url": PIXEL}),
         "input[0].content", "invalid_value"),
        ({"input": [{"type": "function_call_output", "call_id": "call_1", "output": "x"}]}, "input[0]",
         "invalid_value"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}]}, "input[0]",
         "invalid_value"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_parameter"),
        ({"tools": [{"type": "custom", "name": "n"}]}, "tools[0]", "unsupported_parameter"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [{"type": "function", "name": "no good"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [{"type": "function", "name": "f"}] * 2}, "tools", "invalid_value"),
        ({"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function", "name": "g"}},
         "tool_choice", "invalid_value"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "n", "arguments": "[]"}]}, "input[0].arguments",
         "invalid_value"),
        ({"max_tokens": 3}, "max_tokens", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"min_tokens": 3, "max_output_tokens": 2}, "min_tokens", "invalid_value"),
        ({"ignore_eos": True, "text": {"format": {"type": "json_object"}}}, "ignore_eos", "invalid_value"),
        ({"deadline": "soon"}, "deadline", "invalid_value"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_supported_is_refused_by_name(
    http: httpx2.Client, fields: dict[str, Any], param: str, code: str
) -> None:
    error = refused(http.post("/v1/responses", json={**BODY, **fields}))
    assert (error["param"], error["code"]) == (param, code), error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"truncation": "disabled", "service_tier": "auto", "reasoning": None, "conversation": None, "user": "ann"},
        {"reasoning": {"effort": "none"}, "background_options": {"completion_window": "soonest"}, "include": []},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}, "instructions": None, "metadata": None},
    ],
)
def test_values_that_ask_for_nothing_are_accepted(http: httpx2.Client, fields: dict[str, Any]) -> None:
    answer = http.post("/v1/responses", json={**BODY, **fields, "background": True})
    assert answer.status_code == 200, answer.text
    http.post(f"/v1/responses/{answer.json()['id']}/cancel")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("include_obfuscation=true&stream=true", "include_obfuscation"),
        ("include[]=message.output_text.logprobs", "include"),
        ("include[]=nonsense", "include"),
        ("stream=maybe", "stream"),
        ("starting_after=-1&stream=true", "starting_after"),
        ("other=1", "other"),
    ],
)
def test_parameters_of_retrieve_are_checked(http: httpx2.Client, query: str, param: str) -> None:
    made = http.post("/v1/responses", json={**BODY, "background": True}).json()["id"]
    http.post(f"/v1/responses/{made}/cancel")
    assert refused(http.get(f"/v1/responses/{made}?{query}"))["param"] == param
