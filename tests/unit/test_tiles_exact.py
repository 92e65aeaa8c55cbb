"""Tiles equal the reference's byte for byte, over sizes from a point to a ribbon, ties included.

The reference here is written after the published preprocessing, apart from the code under test: it cuts with Pillow's
`crop` and picks the grid with the published loops.
"""

import random

import numpy as np
import pytest
from PIL import Image

from jobs.tiling import tile_count
from worker.engine.config import TilingConfig
from worker.tiles import at_detail, cut

pytestmark = pytest.mark.unit

SMALL = 28
"""A tile size at which thousands of pictures are cut in seconds; what is compared does not depend on it."""
NOISE = np.random.default_rng(11).integers(0, 256, 3 * 4_000_000, dtype=np.uint8)


def reference_grids(least, most):
    candidates = {
        (i, j)
        for n in range(least, most + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if least <= i * j <= most
    }
    return sorted(candidates, key=lambda pair: pair[0] * pair[1])


def reference_grid(width, height, grids, size):
    chosen, smallest = (1, 1), float("inf")
    for columns, rows in grids:
        gap = abs(width / height - columns / rows)
        if gap < smallest:
            smallest, chosen = gap, (columns, rows)
        elif gap == smallest and width * height > 0.5 * size * size * columns * rows:
            chosen = (columns, rows)
    return chosen


def reference_tiles(image, grids, size, thumbnail=True):
    columns, rows = reference_grid(image.width, image.height, grids, size)
    whole = image.resize((size * columns, size * rows))
    tiles = []
    for k in range(columns * rows):
        left, top = (k % columns) * size, (k // columns) * size
        tiles.append(whole.crop((left, top, left + size, top + size)))
    if thumbnail and len(tiles) != 1:
        tiles.append(image.resize((size, size)))
    return tiles


def noisy(width, height, start=0):
    """Noise shows a pixel that is off by one anywhere."""
    pixels = NOISE[start : start + width * height * 3].reshape(height, width, 3)
    return Image.fromarray(pixels)


def sizes(count, seed, most_pixels=400_000):
    """Half of them spread evenly over the magnitudes, the others squares, exact ratios, ribbons and near ties."""
    rng = random.Random(seed)
    made = [(1, 1), (8000, 60), (60, 8000), (1, 8000), (8000, 1), (2, 1), (1, 2), (448, 448), (449, 448), (448, 896)]
    while len(made) < count:
        side, columns, rows = rng.randint(1, 400), rng.randint(1, 12), rng.randint(1, 12)
        width, height = rng.choice(
            [
                (round(10 ** rng.uniform(0, 3.9)), round(10 ** rng.uniform(0, 3.9))),
                (round(10 ** rng.uniform(0, 3.9)), round(10 ** rng.uniform(0, 3.9))),
                (side, side),
                (side * columns, side * rows),
                (rng.randint(4000, 8000), rng.randint(1, 60)),
                (side * columns + rng.choice((-1, 1)), side * rows),
                (2 * side * (columns + rows), side * (2 * rows + 1)),
            ]
        )
        if 0 < width * height <= most_pixels:
            made.append((width, height))
    return made


def assert_equals_reference(width, height, grids, tiling, size, start=0):
    image = noisy(width, height, start)
    expected = reference_tiles(image, grids, size)
    made = cut(image, tiling, size)
    assert made.tiles == len(expected) == tile_count(width, height, tiling, size), (width, height)
    pixels = np.frombuffer(made.pixels, dtype=np.uint8).reshape(made.tiles, size, size, 3)
    for k, tile in enumerate(expected):
        assert np.array_equal(pixels[k], np.asarray(tile)), (width, height, k)


def test_tiles_of_two_thousand_sizes_equal_the_reference_byte_for_byte():
    grids, tiling = reference_grids(1, 12), TilingConfig(1, 12, use_thumbnail=True)
    for k, (width, height) in enumerate(sizes(2000, seed=5)):
        assert_equals_reference(width, height, grids, tiling, SMALL, start=3 * k)


def test_tiles_of_the_real_size_equal_the_reference_byte_for_byte():
    grids, tiling = reference_grids(1, 12), TilingConfig(1, 12, use_thumbnail=True)
    for width, height in sizes(30, seed=6):
        assert_equals_reference(width, height, grids, tiling, 448)


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 6), (2, 9), (6, 12), (1, 24), (1, 40)])
def test_tiles_under_other_budgets_equal_the_reference_byte_for_byte(least, most):
    grids, tiling = reference_grids(least, most), TilingConfig(least, most, use_thumbnail=True)
    for width, height in sizes(150, seed=least + most, most_pixels=100_000):
        assert_equals_reference(width, height, grids, tiling, SMALL)


def test_tile_count_without_decoding_equals_the_reference_for_the_real_size():
    """Ties are decided by the picture's area in tiles, so the real tile size is asked here, without any pixel."""
    for least, most in ((1, 12), (1, 6), (1, 40)):
        grids, tiling = reference_grids(least, most), TilingConfig(least, most, use_thumbnail=True)
        for width, height in sizes(2000, seed=7, most_pixels=50_000_000):
            columns, rows = reference_grid(width, height, grids, 448)
            expected = columns * rows + (columns * rows > 1)
            assert tile_count(width, height, tiling, 448) == expected, (width, height)


def test_frame_of_a_video_is_the_whole_resized_once():
    tiling = at_detail(TilingConfig(1, 12, use_thumbnail=True), "low")
    image = noisy(320, 180)
    assert cut(image, tiling, 448).pixels == image.resize((448, 448)).tobytes()


def test_tiles_equal_those_of_transformers_image_processor():
    """Its grids of equal area stand in another order, so a tie between two of them is left to the reference above."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
        GotOcr2ImageProcessorPil,
        get_all_supported_aspect_ratios,
    )

    processor = GotOcr2ImageProcessorPil(
        size={"height": 112, "width": 112}, crop_to_patches=True, max_patches=12, do_rescale=False, do_normalize=False
    )
    tiling = TilingConfig(1, 12, use_thumbnail=True)
    theirs, compared = get_all_supported_aspect_ratios(1, 12), 0
    for width, height in sizes(120, seed=8, most_pixels=100_000):
        if min(width, height) < 4:
            continue
        if reference_grid(width, height, theirs, 112) != reference_grid(width, height, reference_grids(1, 12), 112):
            continue
        image = noisy(width, height)
        patches = np.asarray(processor(images=image, return_tensors="np")["pixel_values"])
        made = cut(image, tiling, 112)
        pixels = np.frombuffer(made.pixels, dtype=np.uint8).reshape(made.tiles, 112, 112, 3)
        assert np.array_equal(patches.astype(np.uint8).transpose(0, 2, 3, 1), pixels), (width, height)
        compared += 1
    assert compared > 80
