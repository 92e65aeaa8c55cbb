"""Stored chat completions through OpenAI's own client: read, list, label, delete; what is not stored is not there."""

from typing import Any

import openai
import pytest

from tests.fixtures.api import MODEL, ServedApi

pytestmark = pytest.mark.integration

ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is this?"}]
PICTURE: Any = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}


def make(api: ServedApi, client: openai.OpenAI, **fields: Any) -> str:
    with api.worker.serving():
        return client.chat.completions.create(**{"model": MODEL, "messages": ASK, "store": True, **fields}).id


def test_stored_completion_is_read_again_as_it_was(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving():
        made = client.chat.completions.create(model=MODEL, messages=ASK, store=True, metadata={"a": "b"})
    read = client.chat.completions.retrieve(made.id)
    assert read.to_dict() == {**made.to_dict(), "metadata": {"a": "b"}}


@pytest.mark.parametrize("fields", [{"store": False}, {"store": None}])
def test_completion_that_is_not_stored_is_not_found(api: ServedApi, client: openai.OpenAI, fields: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.retrieve(make(api, client, **fields))
    assert caught.value.code == "completion_not_found"


def test_job_of_another_door_or_without_its_answer_is_not_found(api: ServedApi, client: openai.OpenAI) -> None:
    with api.client() as http:
        job = http.post("/v1/jobs", json={"model": MODEL, "messages": ASK}).json()["id"]
        assert http.get(f"/v1/chat/completions/{job}").status_code == 404
        assert http.get("/v1/chat/completions/%00").status_code == 404
        http.post(f"/v1/jobs/{job}/cancel")


def test_list_is_oldest_first_pages_and_keeps_to_metadata_and_model(api: ServedApi, client: openai.OpenAI) -> None:
    ids = [make(api, client, metadata={"list": "x", "n": str(n)}) for n in range(3)]
    other = make(api, client, store=False, metadata={"list": "x"})
    listed = client.chat.completions.list(metadata={"list": "x"}, limit=2)
    assert [one.id for one in listed.data] == ids[:2]
    assert [one.id for one in listed] == ids
    assert other not in ids
    newest = client.chat.completions.list(metadata={"list": "x"}, order="desc", limit=1)
    assert [one.id for one in newest.data] == ids[2:]
    assert not client.chat.completions.list(model="no-such").data
    assert [one.id for one in client.chat.completions.list(metadata={"list": "x", "n": "1"})] == [ids[1]]


def test_metadata_is_replaced(api: ServedApi, client: openai.OpenAI) -> None:
    made = make(api, client, metadata={"a": "b", "c": "d"})
    changed = client.chat.completions.update(made, metadata={"a": "z"})
    assert changed.to_dict()["metadata"] == {"a": "z"}
    assert client.chat.completions.retrieve(made).to_dict()["metadata"] == {"a": "z"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.update(made, metadata={"a": "x" * 513})
    assert caught.value.param == "metadata.a"


def test_deleted_completion_is_gone_with_its_job(api: ServedApi, client: openai.OpenAI) -> None:
    made = make(api, client)
    assert client.chat.completions.delete(made).to_dict() == {
        "id": made, "object": "chat.completion.deleted", "deleted": True
    }  # fmt: skip
    with api.client() as http:
        assert http.get(f"/v1/jobs/{made}").status_code == 404
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.delete(made)


def test_messages_are_what_was_asked_with_the_parts_of_those_with_pictures(
    api: ServedApi, client: openai.OpenAI
) -> None:
    asked = [
        *ASK,
        {"role": "assistant", "content": "A bus."},
        {"role": "user", "content": [ASK[1]["content"], PICTURE]},
    ]
    asked[3]["content"][0] = {"type": "text", "text": "And this?"}
    made = make(api, client, messages=asked)
    messages = list(client.chat.completions.messages.list(made, limit=2))
    assert [(m.id, m.role, m.content) for m in messages] == [
        (f"{made}-0", "system", "Be brief."),
        (f"{made}-1", "user", "What is this?"),
        (f"{made}-2", "assistant", "A bus."),
        (f"{made}-3", "user", "And this?"),
    ]
    parts = messages[3].content_parts
    assert parts is not None
    assert [part.to_dict() for part in parts] == [{"type": "text", "text": "And this?"}, PICTURE]
    assert messages[1].content_parts is None
    newest = client.chat.completions.messages.list(made, order="desc", limit=1)
    assert [m.id for m in newest.data] == [f"{made}-3"]
