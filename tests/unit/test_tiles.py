"""Dynamic tiling against a reference written after the published one, with its loops and its set of grids."""

import hashlib
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jobs.tiling import Grid, grid_of, tile_count
from worker.engine.config import TilingConfig
from worker.tiles import at_detail, cut

pytestmark = pytest.mark.unit

TILING = TilingConfig(min_tiles=1, max_tiles=12, use_thumbnail=True)


def reference_grid(width, height, least, most, size):
    grids = set()
    for n in range(least, most + 1):
        for i in range(1, n + 1):
            for j in range(1, n + 1):
                if least <= i * j <= most:
                    grids.add((i, j))
    best, best_distance = (1, 1), float("inf")
    for grid in sorted(grids, key=lambda g: g[0] * g[1]):
        distance = abs(width / height - grid[0] / grid[1])
        if distance < best_distance:
            best_distance, best = distance, grid
        elif distance == best_distance and width * height > 0.5 * size * size * grid[0] * grid[1]:
            best = grid
    return best


def reference_tiles(image, least, most, size, thumbnail):
    columns, rows = reference_grid(image.width, image.height, least, most, size)
    resized = image.resize((size * columns, size * rows))
    tiles = []
    for k in range(columns * rows):
        left, top = (k % columns) * size, (k // columns) * size
        tiles.append(np.asarray(resized.crop((left, top, left + size, top + size))))
    if thumbnail and len(tiles) != 1:
        tiles.append(np.asarray(image.resize((size, size))))
    return np.stack(tiles)


def drawn(width, height, seed=0):
    rng = random.Random(seed)
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        corner = (rng.randrange(width), rng.randrange(height))
        draw.line((*corner, rng.randrange(width), rng.randrange(height)), tuple(rng.choices(range(256), k=3)), 5)
    return image


def test_grid_of_many_sizes_equals_the_reference():
    rng = random.Random(3)
    sizes = [(rng.randint(1, 4000), rng.randint(1, 4000)) for _ in range(500)]
    ties = [(n * a, n * b) for n in (50, 300, 448, 700, 1344) for a in range(1, 5) for b in range(1, 5)]
    for width, height in sizes + ties:
        for most in (1, 4, 6, 12, 40):
            tiling = TilingConfig(1, most, True)
            expected = Grid(*reference_grid(width, height, 1, most, 448))
            assert grid_of(width, height, tiling, 448) == expected, (width, height, most)


@pytest.mark.parametrize(
    ("width", "height"), [(112, 112), (300, 200), (200, 300), (500, 100), (90, 700), (448, 448), (3, 2), (1, 1000)]
)
def test_cut_picture_gives_the_reference_pixels(width, height):
    image = drawn(width, height)
    made = cut(image, TILING, 112)
    expected = reference_tiles(image, 1, 12, 112, True)
    assert made.tiles == len(expected) == tile_count(width, height, TILING, 112)
    assert made.pixels == expected.tobytes()


def test_cut_without_thumbnail_has_the_grid_alone():
    tiling = TilingConfig(1, 12, use_thumbnail=False)
    assert cut(drawn(400, 100), tiling, 112).tiles == tile_count(400, 100, tiling, 112) == 4


def test_digest_of_equal_pixels_is_equal_and_of_others_differs():
    first, again, other = (cut(drawn(200, 100, seed), TILING, 112) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest
    assert len(first.digest) == 32
    assert first.digest == hashlib.sha256(f"({first.tiles}, 112, 112, 3)".encode() + first.pixels).digest()


def test_at_detail_low_is_one_tile_and_auto_obeys_the_limit():
    assert tile_count(2000, 500, at_detail(TILING, "low"), 448) == 1
    assert at_detail(TILING, "auto") == at_detail(TILING, "high") == TILING
    assert at_detail(TILING, "high", 4).max_tiles == 4
    assert at_detail(TilingConfig(6, 12, True), "auto", 4) == TilingConfig(4, 4, True)
