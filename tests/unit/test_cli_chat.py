"""Words and picture files as a request's body."""

import base64
from pathlib import Path

import pytest

from cli import chat
from cli.errors import CommandError

pytestmark = pytest.mark.unit

PICTURES = Path(chat.__file__).parent / "pictures"


def test_body_without_pictures_has_plain_text_content() -> None:
    body = chat.body("m", "hello", [])
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def test_body_with_pictures_puts_them_in_order_before_the_question() -> None:
    body = chat.body("m", "compare", [str(PICTURES / "cat.jpg"), "https://example.org/x.png"])
    first, second, question = body["messages"][0]["content"]
    header, data = first["image_url"]["url"].split(",")
    assert header == "data:image/jpeg;base64"
    assert base64.b64decode(data) == (PICTURES / "cat.jpg").read_bytes()
    assert second["image_url"]["url"] == "https://example.org/x.png"
    assert question == {"type": "text", "text": "compare"}


def test_body_leaves_out_what_was_not_given_but_keeps_zero() -> None:
    body = chat.body("m", "hello", [], temperature=0, seed=None)
    assert body["temperature"] == 0
    assert "seed" not in body


def test_picture_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read the picture .*none\.png: No such file"):
        chat.picture_url(str(tmp_path / "none.png"))


def test_picture_that_is_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read the picture .*Is a directory"):
        chat.picture_url(str(tmp_path))


def test_picture_that_is_text_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(CommandError, match=r"x\.png is no picture"):
        chat.picture_url(str(tmp_path / "x.png"))


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"BM", "image/bmp"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
    ],
)
def test_picture_kind_is_told_by_its_bytes_not_its_name(tmp_path: Path, head: bytes, media_type: str) -> None:
    (tmp_path / "x.dat").write_bytes(head + b"rest")
    assert chat.picture_url(str(tmp_path / "x.dat")).startswith(f"data:{media_type};base64,")


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\0\0\0\x1cftypisom", "video/mp4"),
        (b"\0\0\0\x08wide", "video/quicktime"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8X", "image/webp"),
    ],
)
def test_videos_follow_the_pictures_with_the_kind_of_their_bytes(tmp_path: Path, head: bytes, media_type: str) -> None:
    (tmp_path / "x.dat").write_bytes(head + b"rest")
    body = chat.body("m", "what?", ["https://x/a.png"], [str(tmp_path / "x.dat"), "https://x/a.mp4"])
    picture, first, second, _ = body["messages"][0]["content"]
    assert picture["type"] == "image_url"
    assert first["video_url"]["url"].startswith(f"data:{media_type};base64,")
    assert second == {"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"hello", b"\0\0\0\x1cftypavif"])
def test_video_that_is_none_is_refused_before_it_is_sent(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(head)
    with pytest.raises(CommandError, match=r"x\.mp4 is no video"):
        chat.video_url(str(tmp_path / "x.mp4"))
