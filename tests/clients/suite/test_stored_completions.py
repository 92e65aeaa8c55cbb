"""Chat completions that are kept, through the official client."""

from uuid import uuid4

import openai
import pytest

from tests.clients.suite.bodies import chat

pytestmark = pytest.mark.acceptance


def test_stored_completion_is_found_by_its_metadata_changed_and_deleted(client: openai.OpenAI) -> None:
    shelf = uuid4().hex
    first, second = (client.chat.completions.create(**chat(), store=True, metadata={"shelf": shelf}) for _ in "ab")
    client.chat.completions.create(**chat(), store=True, metadata={"shelf": "another"})
    found = list(client.chat.completions.list(metadata={"shelf": shelf}, limit=1))
    assert [one.id for one in found] == [first.id, second.id]
    kept = client.chat.completions.retrieve(first.id)
    assert kept.choices[0].message.content == first.choices[0].message.content
    assert kept.usage == first.usage
    changed = client.chat.completions.update(first.id, metadata={"shelf": "8"})
    assert changed.metadata == {"shelf": "8"}
    assert [one.id for one in client.chat.completions.list(metadata={"shelf": shelf})] == [second.id]
    assert client.chat.completions.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(first.id)


def test_messages_of_a_stored_completion_are_what_was_asked(client: openai.OpenAI) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Talk."}]
    made = client.chat.completions.create(**chat() | {"messages": turns}, store=True)
    listed = list(client.chat.completions.messages.list(made.id, limit=1))
    assert [(one.role, one.content) for one in listed] == [(one["role"], one["content"]) for one in turns]


def test_completion_that_is_not_stored_or_is_anothers_is_not_found(
    client: openai.OpenAI, stranger: openai.OpenAI
) -> None:
    plain = client.chat.completions.create(**chat())
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(plain.id)
    kept = client.chat.completions.create(**chat(), store=True)
    with pytest.raises(openai.NotFoundError):
        stranger.chat.completions.retrieve(kept.id)
