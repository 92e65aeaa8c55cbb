"""What requests are estimated to cost."""

import pytest

from api.cost import ANSWER_TOKENS, PICTURE_TILES, TILE_TOKENS, cost_of
from jobs.request import ChatRequest, ImagePart, Message, Part, Role, Sampling, TextPart, VideoPart

pytestmark = pytest.mark.unit


def request(*parts: Part, **values: object) -> ChatRequest:
    return ChatRequest((Message(Role.USER, parts or (TextPart(""),)),), Sampling(seed=1), **values)  # type: ignore[arg-type]


def prompt(*parts: Part) -> int:
    """What parts add to an empty message."""
    return cost_of(request(*parts)) - cost_of(request())


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("x" * 400, 100), ("中" * 4, 3)])
def test_text_costs_a_token_for_four_bytes(text: str, tokens: int) -> None:
    assert prompt(TextPart(text)) == tokens


def test_pictures_cost_their_tiles() -> None:
    assert prompt(ImagePart("https://x/y", "low")) == TILE_TOKENS
    assert prompt(ImagePart("https://x/y"), ImagePart("blob:0")) == 2 * PICTURE_TILES * TILE_TOKENS


def test_videos_cost_a_tile_for_each_frame() -> None:
    assert prompt(VideoPart("https://x/y", num_segments=5)) == 5 * TILE_TOKENS
    assert prompt(VideoPart("https://x/y")) == 8 * TILE_TOKENS


def test_answers_cost_what_is_allowed_but_no_more_than_is_typical() -> None:
    least = cost_of(request(max_tokens=0))
    assert cost_of(request(max_tokens=10)) - least == 10
    assert cost_of(request()) - least == cost_of(request(max_tokens=100_000)) - least == ANSWER_TOKENS
    assert cost_of(request(max_tokens=10, n=3)) - least == 30
    assert cost_of(request(max_tokens=2000, min_tokens=1000)) - least == 1000
