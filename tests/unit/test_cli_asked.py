"""The options of `vlmq ask` and `vlmq submit` as a job's body."""

from pathlib import Path

import pytest

from cli import chat
from cli.asked import Asked, Detail
from cli.client import Client
from cli.errors import CommandError

pytestmark = pytest.mark.unit

CAT = str(Path(chat.__file__).parent / "pictures" / "cat.jpg")


def body(
    pictures: list[str] | None = None, detail: Detail | None = None, schema: Path | None = None, n: int | None = None
):
    with Client("http://127.0.0.1:9") as client:
        return Asked("Why?", pictures, None, detail, "m", None, None, None, n, schema).body(client, "interactive")


def test_body_holds_only_what_was_asked_for():
    assert body() == {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "priority": "interactive"}


def test_detail_is_that_of_every_picture():
    first, second, _ = body([CAT, "https://example.org/x.png"], Detail.LOW)["messages"][0]["content"]
    assert first["image_url"]["detail"] == second["image_url"]["detail"] == "low"


def test_detail_without_a_picture_is_refused():
    with pytest.raises(CommandError, match="--detail is about pictures"):
        body(detail=Detail.HIGH)


def test_schema_of_a_file_and_number_of_answers_become_fields(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    made = body(schema=file, n=3)
    assert made["n"] == 3
    assert made["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}},
    }


@pytest.mark.parametrize(
    ("held", "said"), [(None, "cannot read the schema"), ("{", "is not JSON"), ("[1]", "must be an object")]
)
def test_schema_file_that_cannot_be_used_is_named(tmp_path, held, said):
    file = tmp_path / "schema.json"
    if held is not None:
        file.write_text(held)
    with pytest.raises(CommandError, match=said) as caught:
        body(schema=file)
    assert "schema.json" in str(caught.value)
