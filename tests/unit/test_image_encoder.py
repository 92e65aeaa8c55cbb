import hashlib

import pytest
import torch

from tests.fakes.model import TILE_SIZE, TOKENS_PER_TILE, VOCAB, FakeModel
from worker.engine.generation import Generation, Image, Sampling
from worker.engine.torch.embedding_cache import EmbeddingCache
from worker.engine.torch.image_encoder import ImageEncoder
from worker.engine.torch.sequence import Sequence

pytestmark = pytest.mark.unit


def _image(seed: int, tiles: int) -> Image:
    pixels = bytes((seed * 7 + n) % 256 for n in range(3 * TILE_SIZE**2 * tiles))
    return Image(hashlib.sha256(pixels).digest(), tiles, pixels)


def _sequence(*images: Image) -> Sequence:
    visual = sum(i.tiles for i in images) * TOKENS_PER_TILE
    generation = Generation("g", [1, *range(VOCAB, VOCAB + visual), 2], Sampling(), 4, images=list(images))
    return Sequence(generation, 4, VOCAB, TOKENS_PER_TILE, page_size=4)


def _encoder(tiles_per_step: int = 4, limit_bytes: int = 1 << 20) -> tuple[ImageEncoder, FakeModel]:
    model = FakeModel()
    return ImageEncoder(model, EmbeddingCache(limit_bytes), tiles_per_step), model


def test_images_of_several_sequences_share_a_batch_up_to_the_limit() -> None:
    encoder, model = _encoder(tiles_per_step=4)
    one, two = _sequence(_image(1, 3)), _sequence(_image(2, 2))
    encoder.run([one, two])
    assert model.encoded == [4]
    assert one.visuals[0].embedding is not None and two.visuals[0].embedding is None
    encoder.run([one, two])
    assert model.encoded == [4, 1]
    assert two.visuals[0].embedding is not None


def test_an_image_encoded_in_parts_equals_one_encoded_whole() -> None:
    whole, parts = _sequence(_image(1, 5)), _sequence(_image(1, 5))
    _encoder(tiles_per_step=5)[0].run([whole])
    encoder, model = _encoder(tiles_per_step=2)
    for _ in range(3):
        assert parts.visuals[0].embedding is None
        encoder.run([parts])
    assert model.encoded == [2, 2, 1]
    one, other = whole.visuals[0].embedding, parts.visuals[0].embedding
    assert one is not None and other is not None and torch.equal(one, other)
    assert one.shape == (5 * TOKENS_PER_TILE, 8)


def test_a_known_image_is_served_from_the_cache() -> None:
    encoder, model = _encoder()
    encoder.run([_sequence(_image(1, 2))])
    again = _sequence(_image(1, 2))
    encoder.run([again])
    assert again.visuals[0].embedding is not None
    assert (model.encoded, encoder.tiles_encoded, encoder.tiles_reused) == ([2], 2, 2)


def test_an_image_whose_tokens_are_all_computed_is_not_encoded() -> None:
    encoder, model = _encoder()
    sequence = _sequence(_image(1, 1), _image(2, 1))
    sequence.computed = 1 + TOKENS_PER_TILE
    encoder.run([sequence])
    assert sequence.visuals[0].embedding is None and sequence.visuals[1].embedding is not None
    assert (encoder.tiles_encoded, encoder.tiles_reused) == (1, 1)
    assert model.encoded == [1]


def test_without_room_in_the_cache_the_sequence_still_gets_its_embedding() -> None:
    encoder, _ = _encoder(limit_bytes=0)
    sequence = _sequence(_image(1, 1))
    encoder.run([sequence])
    assert sequence.visuals[0].embedding is not None
    assert sequence.ready_until == sequence.prefill_len


def test_parts_of_an_image_that_nobody_wants_any_more_are_dropped() -> None:
    encoder, model = _encoder(tiles_per_step=2)
    encoder.run([_sequence(_image(1, 3))])
    encoder.run([])
    encoder.run([_sequence(_image(1, 3))])
    assert model.encoded == [2, 2]


def test_release_lets_go_of_what_is_computed_and_counts_what_the_prefix_cache_covered() -> None:
    encoder, _ = _encoder(tiles_per_step=1)
    sequence = _sequence(_image(1, 1), _image(2, 1))
    encoder.run([sequence])
    sequence.computed = sequence.prefill_len
    encoder.release([sequence])
    assert [visual.embedding for visual in sequence.visuals] == [None, None]
    assert (encoder.tiles_encoded, encoder.tiles_reused) == (1, 1)
