"""How many tiles a picture becomes, from its size alone: a worker cuts by it, the API estimates by it.

InternVL's dynamic resolution: a picture is laid out on the grid of tiles whose shape is nearest its own, and followed
by a thumbnail when that has more than one. Source: the model family's reference preprocessing (`dynamic_preprocess`).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol


class TileLimits(Protocol):
    """What decides over the grid, wherever it was read from."""

    @property
    def min_tiles(self) -> int: ...

    @property
    def max_tiles(self) -> int: ...

    @property
    def use_thumbnail(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a served model sees pictures and videos: its workers say so in their rows. A tile is `tile_size` pixels wide
    and high and `tile_tokens` visual tokens in the prompt; `frames` is how many of a video's are seen, each one tile,
    unless the request says."""

    min_tiles: int
    max_tiles: int
    use_thumbnail: bool
    tile_size: int
    tile_tokens: int
    frames: int

    def tiles(self, width: int, height: int) -> int:
        return tile_count(width, height, self, self.tile_size)


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


def grid_of(width: int, height: int, limits: TileLimits, size: int) -> Grid:
    """The grid for a picture of these pixels; tiles are `size` pixels wide and high."""
    aspect = width / height
    best, nearest = Grid(1, 1), float("inf")
    for grid in _grids(limits.min_tiles, limits.max_tiles):
        distance = abs(aspect - grid.columns / grid.rows)
        if distance < nearest:
            best, nearest = grid, distance
        elif distance == nearest and width * height > 0.5 * size * size * grid.tiles:
            best = grid
    return best


def tile_count(width: int, height: int, limits: TileLimits, size: int) -> int:
    """How many tiles a picture of these pixels becomes, the thumbnail included."""
    tiles = grid_of(width, height, limits, size).tiles
    return tiles + 1 if limits.use_thumbnail and tiles > 1 else tiles
