"""A request as a row keeps it, read by another version of this code."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from jobs.request import (
    NOTHING,
    ChatRequest,
    ImagePart,
    JsonFormat,
    Message,
    Role,
    Sampling,
    TextPart,
    VideoPart,
)
from jobs.tools import Tool, ToolCall, ToolFormat, ToolMode, ToolUse

pytestmark = pytest.mark.unit

EVERYTHING = ChatRequest(
    messages=(
        Message(Role.USER, (TextPart("x"), ImagePart("blob:1", "low"), VideoPart("blob:2", 3, 0.5, 1.5))),
        Message(Role.ASSISTANT, (), (ToolCall("call_1", "f", "{}"),)),
        Message(Role.TOOL, (TextPart("y"),), call_id="call_1"),
    ),
    sampling=Sampling(
        seed=9, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias={5: -1.0},
    ),
    max_tokens=3,
    stop=("z",),
    logprobs=2,
    min_tokens=1,
    ignore_eos=True,
    json_format=JsonFormat("{}"),
    n=2,
    tools=ToolUse(ToolFormat.QWEN, (Tool("f", "does", "{}", strict=True),), ToolMode.REQUIRED, ("f",), parallel=False),
)  # fmt: skip


def stored(request: ChatRequest) -> Any:
    return msgspec.json.decode(msgspec.json.encode(request))


def read(value: Any) -> ChatRequest:
    return msgspec.json.decode(msgspec.json.encode(value), type=ChatRequest)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in the value, itself included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def test_whole_request_comes_back_as_it_was_kept() -> None:
    assert read(stored(EVERYTHING)) == EVERYTHING


def test_key_that_is_not_known_is_refused_wherever_it_stands() -> None:
    count = len(list(objects(stored(EVERYTHING))))
    assert count == 14
    for place in range(count):
        value = stored(EVERYTHING)
        list(objects(value))[place]["of_a_later_version"] = None
        with pytest.raises(msgspec.ValidationError, match=r"of_a_later_version|Expected `int`"):
            read(value)


def test_what_is_left_at_its_default_is_not_kept() -> None:
    parts = (TextPart("x"), ImagePart("blob:1"), VideoPart("blob:2"))
    request = ChatRequest(
        (Message(Role.USER, parts),),
        Sampling(seed=1),
        json_format=JsonFormat(),
        tools=ToolUse(ToolFormat.QWEN, (Tool("f"),)),
    )
    assert stored(request) == {
        "messages": [
            {
                "role": "user",
                "parts": [
                    {"type": "text", "text": "x"},
                    {"type": "image", "source": "blob:1"},
                    {"type": "video", "source": "blob:2"},
                ],
            }
        ],
        "sampling": {"seed": 1},
        "json_format": {},
        "tools": {"format": "qwen", "tools": [{"name": "f"}]},
    }
    assert read(stored(request)) == request
    assert stored(NOTHING) == {"messages": [], "sampling": {"seed": 0}}


def test_request_that_was_kept_with_its_defaults_is_still_read() -> None:
    whole = msgspec.to_builtins(NOTHING) | {"max_tokens": None, "stop": [], "min_tokens": 0, "n": 1, "tools": None}
    assert read(whole) == NOTHING
