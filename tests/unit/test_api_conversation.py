"""Messages at the door: pictures, placeholders, sizes, deadlines."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.conversation import Limits, to_messages
from api.deadline import to_instant
from api.errors import ApiError
from api.media import MediaLimits, data_url
from api.schema import ChatBody, validate
from api.tool_use import ToolLimits
from jobs.request import ImagePart, Message, Role, TextPart, VideoPart
from jobs.tools import ToolFormat

pytestmark = pytest.mark.unit

MEDIA = MediaLimits(max_image_bytes=300, max_video_bytes=600, schemes=("data", "https", "http", "file"))
TOOLS = ToolLimits({"vlmq-tiny": ToolFormat.QWEN}, max_tools=2, max_bytes=1000)
LIMITS = Limits(
    max_messages=4, max_images=3, max_videos=2, max_video_segments=16, max_text_chars=100, media=MEDIA, tools=TOOLS
)
PICTURE = b"\x89PNG not really"
DIGEST = hashlib.sha256(PICTURE).hexdigest()


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def image(url: str = "https://example.org/a.png", **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def video(url: str = "https://example.org/a.mp4", **fields: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url, **fields}}


def converted(*content: Any, role: str = "user", kept: list[bytes] | None = None) -> tuple[Message, ...]:
    stored = [] if kept is None else kept

    def keep(data: bytes) -> str:
        stored.append(data)
        return hashlib.sha256(data).hexdigest()

    body = {"model": "m", "messages": [{"role": role, "content": list(content)}]}
    return to_messages(validate(ChatBody, body).messages, LIMITS, keep)


def refusal(*content: Any, role: str = "user") -> ApiError:
    kept: list[bytes] = []
    with pytest.raises(ApiError) as caught:
        converted(*content, role=role, kept=kept)
    assert caught.value.status == 400
    assert kept == []
    return caught.value


def test_data_url_becomes_a_blob_reference() -> None:
    kept: list[bytes] = []
    (message,) = converted(text("what?"), image(data_url(PICTURE, "image/png"), detail="low"), kept=kept)
    assert kept == [PICTURE]
    assert message.parts == (TextPart("what?"), ImagePart(f"blob:{DIGEST}", "low"))


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://10.0.0.1:8080/a?b=c", "file:///pictures/a.png", "HTTPS://x.org/"]
)
def test_other_urls_stay_references(url: str) -> None:
    (message,) = converted(image(url))
    assert message.parts == (ImagePart(url),)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "invalid_image_url"),
        ("picture.png", "invalid_image_url"),
        ("ftp://example.org/a.png", "invalid_image_url"),
        ("gopher://x", "invalid_image_url"),
        (f"blob:{DIGEST}", "invalid_image_url"),
        ("https://", "invalid_image_url"),
        ("https:///a.png", "invalid_image_url"),
        ("http://[::1", "invalid_image_url"),
        ("http://x:99999/", "invalid_image_url"),
        ("http://x/a b", "invalid_image_url"),
        ("http://x/a\nb", "invalid_image_url"),
        ("http://x/" + "a" * 9000, "invalid_image_url"),
        ("file://host/a.png", "invalid_image_url"),
        ("file:a.png", "invalid_image_url"),
        ("data:image/png,abc", "invalid_base64_image"),
        ("data:image/png;base64", "invalid_base64_image"),
        ("data:image/png;base64,***", "invalid_base64_image"),
        ("data:image/png;base64,QUJ", "invalid_base64_image"),
        ("data:image/png;base64,QUJD\n", "invalid_base64_image"),
        ("data:image/png;base64,QQ==QQ==", "invalid_base64_image"),
        ("data:image/png;base64,Ä", "invalid_base64_image"),
        ("data:image/png;base64,", "empty_image_file"),
        ("data:text/plain;base64,QUJD", "unsupported_image_media_type"),
        ("data:;base64,QUJD", "unsupported_image_media_type"),
        (data_url(b"x" * 301, "image/png"), "image_file_too_large"),
        (data_url(b"x" * 30_000, "image/png"), "image_file_too_large"),
    ],
)
def test_wrong_image_url_is_refused_with_openais_code(url: str, code: str) -> None:
    error = refusal(text("x"), image(url))
    assert error.code == code
    assert error.param == "messages[0].content[1].image_url.url"
    assert len(error.message) < 300


def test_picture_of_exactly_the_limit_is_accepted() -> None:
    kept: list[bytes] = []
    converted(image(data_url(b"x" * 300, "image/png")), kept=kept)
    assert len(kept[0]) == 300


def test_nothing_is_stored_when_a_later_picture_is_wrong() -> None:
    refusal(image(data_url(PICTURE, "image/png")), image("ftp://x"))


@pytest.mark.parametrize(
    "content",
    [
        [text("no placeholder"), image(), image()],
        [text("<image> and <image>"), image(), image()],
        [text("<image>"), image(), text("<image>"), image()],
        [text("only text")],
    ],
)
def test_placeholders_that_match_the_images_are_accepted(content: list[Any]) -> None:
    assert len(converted(*content)[0].parts) == len(content)


@pytest.mark.parametrize(
    ("content", "places", "images"),
    [
        ([text("<image><image>"), image()], 2, 1),
        ([text("<image>"), image(), image()], 1, 2),
        ([text("a <image> alone")], 1, 0),
    ],
)
def test_placeholders_that_do_not_match_are_refused_with_both_counts(
    content: list[Any], places: int, images: int
) -> None:
    message = refusal(*content).message
    assert f"{places} <image> placeholders" in message
    assert f"{images} images" in message


def test_placeholder_of_an_assistant_is_only_text() -> None:
    assert converted(text("write <image>"), role="assistant")[0].parts == (TextPart("write <image>"),)


@pytest.mark.parametrize("role", ["system", "assistant", "developer"])
def test_image_outside_a_user_message_is_refused(role: str) -> None:
    assert role in refusal(image(), role=role).message


def test_video_of_a_data_url_becomes_a_blob_reference_with_its_segments() -> None:
    kept: list[bytes] = []
    wire = video(data_url(PICTURE, "video/mp4"), num_segments=4, start=1, end=2.5)
    (message,) = converted(wire, text("what happens?"), kept=kept)
    assert kept == [PICTURE]
    assert message.parts == (VideoPart(f"blob:{DIGEST}", 4, 1.0, 2.5), TextPart("what happens?"))


@pytest.mark.parametrize("media_type", ["video/mp4", "video/webm", "video/quicktime", "image/gif", "image/webp"])
def test_media_types_of_videos_are_accepted(media_type: str) -> None:
    assert converted(video(data_url(PICTURE, media_type)))[0].parts == (VideoPart(f"blob:{DIGEST}"),)


def test_other_urls_of_videos_stay_references() -> None:
    assert converted(video("file:///videos/a.mp4"))[0].parts == (VideoPart("file:///videos/a.mp4"),)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("a.mp4", "invalid_video_url"),
        ("https://", "invalid_video_url"),
        ("file:a.mp4", "invalid_video_url"),
        ("data:video/mp4,abc", "invalid_base64_video"),
        ("data:video/mp4;base64,***", "invalid_base64_video"),
        ("data:video/mp4;base64,", "empty_video_file"),
        ("data:video/x-msvideo;base64,QUJD", "unsupported_video_media_type"),
        ("data:image/png;base64,QUJD", "unsupported_video_media_type"),
        (data_url(b"x" * 601, "video/mp4"), "video_file_too_large"),
    ],
)
def test_wrong_video_url_is_refused_with_its_code(url: str, code: str) -> None:
    error = refusal(text("x"), video(url))
    assert error.code == code
    assert error.param == "messages[0].content[1].video_url.url"


def test_video_may_be_longer_than_an_image() -> None:
    assert converted(video(data_url(b"x" * 600, "video/mp4")))
    assert refusal(image(data_url(b"x" * 301, "image/png"))).code == "image_file_too_large"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"num_segments": 0}, "num_segments"),
        ({"num_segments": 2.5}, "num_segments"),
        ({"num_segments": 17}, "num_segments"),
        ({"start": -1}, "start"),
        ({"end": 0}, "end"),
        ({"start": 2, "end": 2}, "start"),
        ({"fps": 2}, "fps"),
        ({"detail": "low"}, "detail"),
    ],
)
def test_wrong_field_of_a_video_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    error = refusal(video(**fields))
    assert param in f"{error.param} {error.message}"
    assert str(next(iter(fields.values()))) in error.message or param in ("fps", "detail")


def test_too_many_videos_are_refused_with_the_limit() -> None:
    assert "3 videos; at most 2" in refusal(*[video()] * 3).message


def test_video_placeholders_are_counted_where_there_are_videos() -> None:
    assert converted(text("the <video> tag"))
    assert converted(video(), text("in <video> or <image>?"), image())
    assert "2 <video> placeholders and 1 videos" in refusal(video(), text("<video> <video>")).message
    assert "1 <image> placeholders and 0 images" in refusal(video(), text("<image>")).message


def test_video_outside_a_user_message_is_refused() -> None:
    assert "assistant" in refusal(video(), role="assistant").message


def test_developer_is_the_system() -> None:
    assert converted(text("be brief"), role="developer")[0].role is Role.SYSTEM


def test_too_many_images_messages_and_characters_are_refused_with_the_limit() -> None:
    assert "at most 3" in refusal(*[image()] * 4).message
    assert "at most 100" in refusal(text("x" * 101)).message
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}] * 5}
    with pytest.raises(ApiError, match="at most 4"):
        to_messages(validate(ChatBody, body).messages, LIMITS, lambda data: "")


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_deadline_in_seconds_counts_from_now() -> None:
    assert to_instant(90, NOW, 3600) == NOW + timedelta(seconds=90)


def test_deadline_as_instant_is_taken_in_utc() -> None:
    assert to_instant("2026-01-02T04:30:00+01:00", NOW, 3600) == datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
    assert to_instant("2026-01-02T03:30:00Z", NOW, 3600) == datetime(2026, 1, 2, 3, 30, tzinfo=UTC)


def test_no_deadline_is_none() -> None:
    assert to_instant(None, NOW, 3600) is None


@pytest.mark.parametrize(
    "deadline",
    [
        *(0, -1, 3601, 1e300, "2026-01-02T03:00:00Z", "2026-01-03T03:00:00Z", "2026-01-02T03:30:00", "soon", ""),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_wrong_deadline_is_refused(deadline: float | str) -> None:
    with pytest.raises(ApiError) as caught:
        to_instant(deadline, NOW, 3600)
    assert caught.value.param == "deadline"
