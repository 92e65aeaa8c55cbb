"""What responses are asked: input items, pictures and files, calls and their outputs, token counts."""

import threading
from typing import Any

import httpx2
import openai
import pytest
import redis

from jobs.counting import Counted, CountPrompt, CountRefused, RedisCounting
from jobs.request import ImagePart, Message, Role, TextPart, VideoPart
from jobs.tools import ToolCall
from tests.fixtures.api import MODEL, ServedApi, tokens_of
from tests.fixtures.responses import PIXEL, said

pytestmark = pytest.mark.integration


def test_input_items_are_listed_a_page_at_a_time(api: ServedApi, client: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"{n}"} for n in range(5)]
    made = client.responses.create(model=MODEL, input=items, background=True)
    client.responses.cancel(made.id)
    for order, expected in (("asc", ["0", "1", "2", "3", "4"]), ("desc", ["4", "3", "2", "1", "0"])):
        first = client.responses.input_items.list(made.id, limit=2, order=order)  # type: ignore[arg-type]
        assert first.has_more and (first.first_id, first.last_id) == (first.data[0].id, first.data[1].id)
        texts = [item.content[0].text for item in first]  # type: ignore[union-attr]
        assert texts == expected
        assert len({item.id for item in first}) == 5
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.input_items.list(made.id, after="msg_unknown")
    assert caught.value.param == "after"


def test_pictures_among_input_items_have_their_bytes_when_they_are_asked_for(
    api: ServedApi, http: httpx2.Client
) -> None:
    content: Any = [
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_video", "video_url": "data:video/mp4;base64,QUJD", "num_segments": 4},
        {"type": "input_text", "text": "What?"},
    ]
    body = {"model": MODEL, "input": [{"role": "user", "content": content}], "background": True}
    made = http.post("/v1/responses", json=body).json()["id"]
    http.post(f"/v1/responses/{made}/cancel")
    (message,) = api.worker.store.get(made).request.messages
    assert [type(part) for part in message.parts] == [ImagePart, ImagePart, VideoPart, TextPart]
    (plain,) = http.get(f"/v1/responses/{made}/input_items").json()["data"]
    assert [part.get("image_url") for part in plain["content"]] == [None, "https://example.com/a.png", None, None]
    include = {"include[]": "message.input_image.image_url"}
    (whole,) = http.get(f"/v1/responses/{made}/input_items", params=include).json()["data"]
    parts = whole["content"]
    assert (parts[0]["image_url"], parts[2]["video_url"]) == (PIXEL, "data:video/mp4;base64,QUJD")
    assert not any("blob" in part or "media_type" in part for part in [*parts, *plain["content"]])


def test_uploaded_pictures_are_referred_to_by_their_ids(api: ServedApi, client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.png", b"a picture"), purpose="vision")
    parts: Any = [{"type": "input_image", "file_id": file.id}, {"type": "input_file", "file_id": file.id}]
    made = client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}], background=True)
    client.responses.cancel(made.id)
    request = api.worker.store.get(made.id).request
    (digest,) = request.blobs()
    assert request.messages == (Message(Role.USER, (ImagePart(f"blob:{digest}"), ImagePart(f"blob:{digest}"))),)


def test_answer_and_calls_are_sent_back_as_items(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        first = client.responses.create(model=MODEL, input="Hi")
        conversation: Any = [
            {"role": "developer", "content": "Look first."},
            {"role": "user", "content": "Hi"},
            *[item.to_dict() | {"phase": None} for item in first.output],
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at": 1}'},
            {"type": "function_call", "call_id": "call_2", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "red"}]},
        ]
        second = client.responses.create(model=MODEL, input=conversation)
    messages = api.worker.store.get(second.id).request.messages
    calls = (ToolCall("call_1", "look", '{"at": 1}'), ToolCall("call_2", "look", "{}"))
    assert messages == (
        said(Role.SYSTEM, "Look first."),
        said(Role.USER, "Hi"),
        Message(Role.ASSISTANT, (TextPart("A red bus."),), calls),
        Message(Role.TOOL, (TextPart("blue"),), call_id="call_1"),
        Message(Role.TOOL, (TextPart("red"),), call_id="call_2"),
    )
    kinds = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert kinds == ["message"] * 3 + ["function_call"] * 2 + ["function_call_output"] * 2


def test_call_is_made_answered_and_gone_on_from(api: ServedApi, client: openai.OpenAI) -> None:
    look: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    texts = ("Let me look.", '<tool_call>\n{"name": "look", ', '"arguments": {"at": 1}}\n</tool_call>', "")
    with api.worker.serving(lambda job: api.worker.answer(job, tokens_of(texts))):
        first = client.responses.create(model=MODEL, input="Hi", tools=[look])
        with client.responses.stream(model=MODEL, input="Hi", tools=[look]) as stream:
            events = list(stream)
            streamed = stream.get_final_response()
    said_first, call = first.output
    assert said_first.type == "message" and call.type == "function_call"
    assert (first.output_text, call.name, call.arguments) == ("Let me look.", "look", '{"at": 1}')
    assert [tool.to_dict() for tool in first.tools] == [look | {"description": None}]
    assert [item.type for item in streamed.output] == ["message", "function_call"]
    arguments = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(arguments) == '{"at": 1}'
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "blue"}]
    with api.worker.serving():
        second = client.responses.create(model=MODEL, input=output, tools=[look], previous_response_id=first.id)
    assert api.worker.store.get(second.id).request.messages == (
        said(Role.USER, "Hi"),
        Message(Role.ASSISTANT, (TextPart("Let me look."),), (ToolCall(call.call_id, "look", '{"at": 1}'),)),
        Message(Role.TOOL, (TextPart("blue"),), call_id=call.call_id),
    )
    with pytest.raises(openai.BadRequestError, match=call.call_id) as caught:
        client.responses.create(model=MODEL, input="Well?", tools=[look], previous_response_id=first.id)
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("answer", [Counted(30, 16, 100, 70), CountRefused("invalid_image", "No picture", None)])
def test_input_tokens_are_counted_by_a_worker(
    api: ServedApi, client: openai.OpenAI, answer: Counted | CountRefused
) -> None:
    seen: list[Any] = []
    with redis.Redis.from_url(api.services.redis_url) as connection:
        counting = RedisCounting(connection, api.services.redis_prefix)

        def serve() -> None:
            while (taken := counting.take(MODEL)) is None:
                pass
            seen.append(taken[1])
            counting.answer(taken[0], answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            count = client.responses.input_tokens.count(model=MODEL, input="Hi", instructions="Be brief.")
            assert (count.object, count.input_tokens) == ("response.input_tokens", 30)
        except openai.BadRequestError as exc:
            assert isinstance(answer, CountRefused) and (exc.code, exc.param) == ("invalid_image", "input")
        thread.join()
    (question,) = seen
    assert isinstance(question, CountPrompt)
    assert question.request.messages == (said(Role.SYSTEM, "Be brief."), said(Role.USER, "Hi"))
