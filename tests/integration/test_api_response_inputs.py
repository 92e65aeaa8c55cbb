"""What responses are asked: turns that go on from earlier ones, input items, token counts, files, keys, refusals."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import redis

from cli.services import Services
from jobs.counting import Counted, CountPrompt, CountRefused, RedisCounting
from jobs.database import Database
from jobs.job import FinishReason, JobError, JobState
from jobs.keys import PostgresApiKeys
from jobs.request import ImagePart, Message, Role, TextPart, VideoPart
from jobs.tools import ToolCall
from tests.fixtures.api import MODEL, ServedApi, served, tokens_of
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

PIXEL = "data:image/png;base64,QUJD"
BODY: dict[str, Any] = {"model": MODEL, "input": "Hi"}


@pytest.fixture
def client(api: ServedApi) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="any", max_retries=0, timeout=30) as made:
        yield made


def said(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))


def refused(answer: httpx2.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_turn_goes_on_from_an_earlier_one_without_its_instructions(api: ServedApi, client: openai.OpenAI) -> None:
    picture: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]}]
    with api.worker.serving():
        first = client.responses.create(model=MODEL, input=picture, instructions="Be brief.")
        second = client.responses.create(model=MODEL, input="Sure?", previous_response_id=first.id)
        third = client.responses.create(
            model=MODEL, input="Really?", previous_response_id=second.id, instructions="Be long."
        )
    asked = [api.worker.store.get(response.id).request for response in (first, second, third)]
    answer = said(Role.ASSISTANT, "A red bus.")
    assert asked[1].messages == (asked[0].messages[1], answer, said(Role.USER, "Sure?"))
    assert asked[2].messages == (
        said(Role.SYSTEM, "Be long."), *asked[1].messages, answer, said(Role.USER, "Really?"),
    )  # fmt: skip
    assert asked[2].blobs() == asked[0].blobs() and len(asked[0].blobs()) == 1
    assert third.previous_response_id == second.id
    client.responses.delete(first.id)
    client.responses.delete(second.id)
    assert len(client.responses.input_items.list(third.id).data) == 1


def test_turn_goes_on_from_what_was_cut_or_cancelled(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(lambda job: api.worker.finish(job, tokens_of(("A ",)), FinishReason.LENGTH)):
        cut = client.responses.create(model=MODEL, input="One")
    cancelled = client.responses.create(model=MODEL, input="Two", background=True)
    client.responses.cancel(cancelled.id)
    with api.worker.serving():
        behind = [
            client.responses.create(model=MODEL, input="Three", previous_response_id=response.id)
            for response in (cut, cancelled)
        ]
    asked = [api.worker.store.get(response.id).request.messages for response in behind]
    assert asked[0] == (said(Role.USER, "One"), said(Role.ASSISTANT, "A "), said(Role.USER, "Three"))
    assert asked[1] == (said(Role.USER, "Two"), said(Role.USER, "Three"))


def test_previous_response_that_nothing_can_follow_is_refused(
    api: ServedApi, client: openai.OpenAI, http: httpx2.Client
) -> None:
    running = client.responses.create(model=MODEL, input="Hi", background=True)

    def follow(previous: str) -> dict[str, Any]:
        error = refused(http.post("/v1/responses", json={**BODY, "previous_response_id": previous}))
        assert error["param"] == "previous_response_id"
        return error

    assert follow(running.id)["code"] == "previous_response_not_finished"
    job = api.worker.claim(running.id)
    api.worker.fail(job, JobError("invalid_image", "No picture"))
    error = follow(running.id)
    assert error["code"] == "previous_response_failed" and "No picture" in error["message"]
    assert follow("resp_unknown")["code"] == "previous_response_not_found"
    assert follow("resp_\u0000")["code"] == "invalid_value"
    with api.worker.serving():
        unstored = client.responses.create(model=MODEL, input="Hi", store=False)
    assert follow(unstored.id)["code"] == "previous_response_not_found"
    chat = http.post("/v1/jobs", json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).json()["id"]
    http.post(f"/v1/jobs/{chat}/cancel")
    assert follow(chat)["code"] == "previous_response_not_found"


def test_responses_of_another_tenant_do_not_exist(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as api,
    ):
        database = Database(database_url)
        (_, mine), (_, theirs) = (PostgresApiKeys(database).create(tenant, "test") for tenant in ("one", "two"))
        database.close()
        with (
            openai.OpenAI(base_url=f"{api.url}/v1", api_key=mine, max_retries=0) as owner,
            openai.OpenAI(base_url=f"{api.url}/v1", api_key=theirs, max_retries=0) as other,
        ):
            made = owner.responses.create(model=MODEL, input="Hi", background=True)
            assert owner.responses.cancel(made.id).status == "cancelled"
            for call in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
                with pytest.raises(openai.NotFoundError):
                    call(made.id)
            with pytest.raises(openai.NotFoundError):
                other.responses.retrieve(made.id, stream=True)
            with pytest.raises(openai.BadRequestError) as caught:
                other.responses.create(model=MODEL, input="Hi", previous_response_id=made.id)
            assert caught.value.code == "previous_response_not_found"


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


def test_same_key_gives_the_stored_answer_or_the_same_stream(api: ServedApi, http: httpx2.Client) -> None:
    def post(key: str, **fields: Any) -> httpx2.Response:
        return http.post("/v1/responses", json={**BODY, **fields}, headers={"idempotency-key": key})

    with api.worker.serving():
        first, second = post("whole", seed=1), post("whole", seed=1)
        assert first.json() == second.json() and second.headers["idempotent-replayed"] == "true"
        streams = [post("stream", stream=True) for _ in range(2)]
        assert streams[0].text == streams[1].text and "response.completed" in streams[0].text
    assert refused(post("whole", seed=2), 422)
    made = [post("behind", background=True).json() for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    http.post(f"/v1/responses/{made[0]['id']}/cancel")


def test_client_that_leaves_under_a_key_may_come_back_for_the_answer(api: ServedApi, http: httpx2.Client) -> None:
    headers = {"idempotency-key": "comes-back"}
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/responses", json=BODY, headers=headers, timeout=0.5)
    busy = http.post("/v1/responses", json=BODY, headers=headers)
    assert refused(busy, 409)["code"] == "idempotency_key_in_use"
    assert busy.headers["x-should-retry"] == "false"
    job = api.worker.claim(busy.headers["x-vlmq-job-id"])
    assert api.worker.store.get(job.id).state is JobState.IN_PROGRESS
    api.worker.answer(job)
    done = http.post("/v1/responses", json=BODY, headers=headers).json()
    assert (done["id"], done["status"]) == (job.id, "completed")


def content(*parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"input": [{"role": role, "content": list(parts)}]}


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


def test_conversation_that_is_too_large_as_a_whole_is_refused(api: ServedApi, http: httpx2.Client) -> None:
    picture = {"type": "input_image", "image_url": PIXEL}
    with api.worker.serving():
        first = http.post("/v1/responses", json={**BODY, **content(*[picture] * 20)}).json()["id"]
    body = {**BODY, **content(*[picture] * 13), "previous_response_id": first}
    assert re.search("go(es)? before it have 33 images", refused(http.post("/v1/responses", json=body))["message"])
