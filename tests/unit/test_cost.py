"""What requests are estimated to cost."""

import pytest

from api.cost import ANSWER_TOKENS, FRAME_TOKENS, INTERNVL, PICTURE, PICTURE_TOKENS, Estimate
from jobs.request import ChatRequest, ImagePart, Message, Part, Role, Sampling, TextPart, VideoPart
from jobs.tiling import Tiling

pytestmark = pytest.mark.unit

KNOWN = {"blob:small": (300, 300), "blob:wide": (2000, 500)}
SMALL = Tiling(min_tiles=1, max_tiles=4, use_thumbnail=False, tile_size=112, tile_tokens=16, frames=3)


def request(*parts: Part, **values: object) -> ChatRequest:
    return ChatRequest((Message(Role.USER, parts or (TextPart(""),)),), Sampling(seed=1), **values)  # type: ignore[arg-type]


def cost_of(asked: ChatRequest, tiling: Tiling = INTERNVL) -> int:
    return Estimate(tiling, KNOWN.get).cost_of(asked)


def prompt(*parts: Part, tiling: Tiling = INTERNVL) -> int:
    """What parts add to an empty message."""
    return cost_of(request(*parts), tiling) - cost_of(request(), tiling)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("four", 1), ("x" * 400, 100), ("中" * 4, 3)])
def test_text_costs_a_token_for_four_bytes(text: str, tokens: int) -> None:
    assert prompt(TextPart(text)) == tokens


@pytest.mark.parametrize(
    ("source", "detail", "tiles"),
    [("blob:small", "auto", 1), ("blob:wide", "auto", 4 + 1), ("blob:wide", "high", 5), ("blob:wide", "low", 1)],
)
def test_pictures_cost_the_tiles_that_their_size_becomes(source: str, detail: str, tiles: int) -> None:
    assert prompt(ImagePart(source, detail)) == tiles * 256 + PICTURE_TOKENS  # type: ignore[arg-type]


def test_pictures_of_unknown_size_cost_a_usual_ones_tiles() -> None:
    usual = INTERNVL.tiles(*PICTURE)
    assert prompt(ImagePart("https://x/y"), ImagePart("blob:0")) == 2 * (usual * 256 + PICTURE_TOKENS)
    assert prompt(ImagePart("https://x/y", "low")) == 256 + PICTURE_TOKENS


def test_pictures_cost_what_the_models_workers_make_of_them() -> None:
    assert prompt(ImagePart("blob:wide"), tiling=SMALL) == 4 * 16 + PICTURE_TOKENS
    assert prompt(ImagePart("https://x/y"), tiling=SMALL) <= 4 * 16 + PICTURE_TOKENS
    assert prompt(VideoPart("https://x/y"), tiling=SMALL) == 3 * (16 + FRAME_TOKENS)


def test_videos_cost_a_tile_for_each_frame() -> None:
    assert prompt(VideoPart("https://x/y", num_segments=5)) == 5 * (256 + FRAME_TOKENS)
    assert prompt(VideoPart("https://x/y")) == 8 * (256 + FRAME_TOKENS)


def test_answers_cost_what_is_allowed_but_no_more_than_is_typical() -> None:
    least = cost_of(request(max_tokens=0))
    assert cost_of(request(max_tokens=10)) - least == 10
    assert cost_of(request()) - least == cost_of(request(max_tokens=100_000)) - least == ANSWER_TOKENS
    assert cost_of(request(max_tokens=10, n=3)) - least == 30
    assert cost_of(request(max_tokens=2000, min_tokens=1000)) - least == 1000
