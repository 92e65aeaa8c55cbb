"""Known traps of TensorRT-LLM's executor: keys and values that are reused, and those that must not be."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures.engines import (
    ask,
    drive,
    picture,
    tokens_of,
    words,
)
from tests.fixtures.models import Reference, random_tiles
from worker.engine.generation import Generation, Sampling
from worker.engine.tensorrt.engine import TensorRTEngine

pytestmark = pytest.mark.contract


def test_two_pictures_under_the_same_words_share_no_keys(trt_engine: TensorRTEngine, tiny_reference: Reference) -> None:
    """Nor do they share rows: the virtual ids count on over tiles and pictures."""
    for tile_counts in ((4,), (3, 1), (1, 3)):
        generation = ask("a", 80, 20, [picture(100 + tiles, tiles) for tiles in tile_counts])
        tiles = np.concatenate([random_tiles(100 + tiles, tiles) for tiles in tile_counts])
        expected = tiny_reference.generate(generation.prompt_ids, tiles, 8)
        outputs = drive(trt_engine, generation)["a"]
        assert tokens_of(outputs) == expected and outputs[0].cached_tokens == 0


def test_picture_that_was_seen_before_is_reused_and_answers_alike(
    trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    first = drive(trt_engine, ask("a", 81, 20, [picture(105, 5)]))["a"]
    again = drive(trt_engine, ask("a", 81, 20, [picture(105, 5)]))["a"]
    assert first[0].cached_tokens == 0 and (again[0].cached_tokens or 0) >= 64
    assert tokens_of(first) == tokens_of(again)
    before, after = (request.prompt_tuning_config.embedding_table for request in driven_executor.requests)
    assert torch.equal(before, after)


def test_blocks_that_are_taken_over_in_part_are_not_counted_as_cached_whole(
    trt_engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    whole = words(82, 64)
    drive(trt_engine, Generation("a", whole, Sampling(), 40))
    fork = [*whole[:36], *words(83, 28)]
    outputs = drive(trt_engine, Generation("b", fork, Sampling(), 8))["b"]
    assert outputs[0].cached_tokens == 32
    assert tokens_of(outputs) == tiny_reference.generate(fork, None, 8)


def test_tenants_share_no_keys(trt_engine: TensorRTEngine) -> None:
    cached = [
        drive(trt_engine, ask("a", 84, 70, [picture(101)], salt=salt))["a"][0].cached_tokens
        for salt in (1, 2, 1, (1 << 64) - 1)
    ]
    assert cached[0] == cached[1] == cached[3] == 0 and (cached[2] or 0) > 0
