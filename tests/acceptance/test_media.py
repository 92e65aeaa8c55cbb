"""Videos and images together over the whole system, as an unmodified OpenAI client sends them."""

from typing import Any

import openai
import pytest

from tests.acceptance.bodies import image_part
from tests.acceptance.system import MODEL, System
from tests.fixtures.clips import animation, clip
from tests.fixtures.pictures import data_url, picture

pytestmark = [pytest.mark.acceptance, pytest.mark.every_backend]


@pytest.fixture
def client(shared: System) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0)


def video_part(data: bytes, media_type: str = "video/mp4", **fields: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": data_url(data, media_type), **fields}}


def asked(*content: Any) -> dict[str, Any]:
    text = {"type": "text", "text": "What happens?"}
    return {"model": MODEL, "messages": [{"role": "user", "content": [*content, text]}], "temperature": 0}


def image_tokens(shared: System, *content: Any) -> int:
    job = shared.wait(shared.submit(asked(*content) | {"max_tokens": 2}))
    assert job["error"] is None
    return int(job["usage"]["prompt_tokens_details"]["image_tokens"])


def test_openai_client_asks_about_a_video_in_two_rounds(client: openai.OpenAI) -> None:
    body = asked(video_part(clip(), num_segments=4))
    first = client.chat.completions.create(**body, max_tokens=8)
    body["messages"] += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": [image_part(data_url(picture())), {"type": "text", "text": "And here?"}]},
    ]
    second = client.chat.completions.create(**body, max_tokens=8)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert second.usage.prompt_tokens_details is not None
    assert second.usage.prompt_tokens_details.cached_tokens


def test_every_frame_is_one_tile_beside_those_of_images(shared: System) -> None:
    tile = image_tokens(shared, image_part(data_url(picture())))
    low = image_tokens(shared, {"type": "image_url", "image_url": {"url": data_url(picture()), "detail": "low"}})
    assert tile > low
    assert image_tokens(shared, video_part(clip(), num_segments=3)) == 3 * low
    assert image_tokens(shared, video_part(animation(), "image/gif"), image_part(data_url(picture()))) == 8 * low + tile


def test_damaged_video_is_a_bad_request_with_its_code(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as truncated:
        client.chat.completions.create(**asked(video_part(clip()[:-40])))
    assert truncated.value.code == "video_parse_error"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(**asked(video_part(clip(), "video/x-msvideo")))
    assert (wrong.value.code, wrong.value.param) == (
        "unsupported_video_media_type",
        "messages[0].content[0].video_url.url",
    )
