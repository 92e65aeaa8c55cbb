"""Files through the official client."""

import openai
import pytest

from tests.clients.suite.bodies import asking
from tests.fixtures.pictures import picture

pytestmark = pytest.mark.acceptance


def test_file_is_kept_listed_read_and_deleted(client: openai.OpenAI, stranger: openai.OpenAI) -> None:
    made = client.files.create(file=("cat.png", picture(), "image/png"), purpose="vision")
    assert (made.object, made.filename, made.bytes) == ("file", "cat.png", len(picture()))
    assert made.id in [file.id for file in client.files.list(purpose="vision")]
    assert client.files.retrieve(made.id).purpose == "vision"
    assert client.files.content(made.id).read() == picture()
    with pytest.raises(openai.NotFoundError):
        stranger.files.retrieve(made.id)
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)


def test_uploaded_picture_is_seen_by_its_id(client: openai.OpenAI) -> None:
    made = client.files.create(file=("cat.png", picture(), "image/png"), purpose="vision")
    parts = [{"type": "input_image", "file_id": made.id, "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    seen = client.responses.create(**asking() | {"input": [{"role": "user", "content": parts}]})
    plain = client.responses.create(**asking("What?"))
    assert seen.usage is not None and plain.usage is not None
    assert seen.usage.input_tokens > plain.usage.input_tokens
