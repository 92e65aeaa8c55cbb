"""InternVL's dynamic resolution: from a picture to its tiles. Knows no formats and no prompt.

A picture is laid out on the grid of tiles whose shape is nearest its own, resized to it with Pillow's antialiased
bicubic filter, cut row by row, and followed by a thumbnail of the whole when there is more than one tile. Source: the
model family's reference preprocessing (`dynamic_preprocess`).
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.engine import generation
from worker.engine.config import TilingConfig


@dataclass(frozen=True, slots=True)
class Grid:
    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        return self.columns * self.rows


@lru_cache(maxsize=64)
def _grids(min_tiles: int, max_tiles: int) -> tuple[Grid, ...]:
    """Candidates by area. Among grids of one area the order is that of the reference's set of pairs: it decides ties,
    so the set is built here in the same way, with the same insertions."""
    pairs = {
        (i, j)
        for n in range(min_tiles, max_tiles + 1)
        for i in range(1, n + 1)
        for j in range(1, n + 1)
        if min_tiles <= i * j <= max_tiles
    }
    return tuple(Grid(i, j) for i, j in sorted(pairs, key=lambda pair: pair[0] * pair[1]))


def grid_of(width: int, height: int, tiling: TilingConfig, size: int) -> Grid:
    """The grid for a picture of these pixels; tiles are `size` pixels wide and high."""
    aspect = width / height
    best, nearest = Grid(1, 1), float("inf")
    for grid in _grids(tiling.min_tiles, tiling.max_tiles):
        distance = abs(aspect - grid.columns / grid.rows)
        if distance < nearest:
            best, nearest = grid, distance
        elif distance == nearest and width * height > 0.5 * size * size * grid.tiles:
            best = grid
    return best


def tile_count(width: int, height: int, tiling: TilingConfig, size: int) -> int:
    """How many tiles `cut` will make of a picture of these pixels, the thumbnail included."""
    tiles = grid_of(width, height, tiling, size).tiles
    return tiles + 1 if tiling.use_thumbnail and tiles > 1 else tiles


def at_detail(tiling: TilingConfig, detail: str, limit: int | None = None) -> TilingConfig:
    """`low` is one tile; `auto` and `high` are what the checkpoint was trained with, at most `limit`."""
    if detail == "low":
        return replace(tiling, min_tiles=1, max_tiles=1)
    most = tiling.max_tiles if limit is None else min(tiling.max_tiles, limit)
    return replace(tiling, min_tiles=min(tiling.min_tiles, most), max_tiles=most)


def cut(image: Image.Image, tiling: TilingConfig, size: int) -> generation.Image:
    """The tiles of an RGB picture as the engine takes them: uint8 `[tiles, size, size, 3]`."""
    grid = grid_of(image.width, image.height, tiling, size)
    whole = image.resize((size * grid.columns, size * grid.rows), Image.Resampling.BICUBIC)
    pixels = np.asarray(whole, dtype=np.uint8).reshape(grid.rows, size, grid.columns, size, 3)
    tiles: NDArray[np.uint8] = pixels.transpose(0, 2, 1, 3, 4).reshape(grid.tiles, size, size, 3)
    if tiling.use_thumbnail and grid.tiles > 1:
        thumbnail = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)
        tiles = np.concatenate([tiles, thumbnail[None]])
    data = tiles.tobytes()
    digest = sha256(f"{tiles.shape}".encode() + data).digest()
    return generation.Image(digest=digest, tiles=len(tiles), pixels=data)
