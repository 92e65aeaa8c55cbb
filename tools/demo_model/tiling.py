"""Dynamic resolution for training: the same tiles, bit for bit, as the product cuts (a test holds the two together).

Its own copy because the training machine has none of the product's packages.
"""

from functools import cache
from math import inf

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.demo_model.geometry import DEMO, Geometry

Pixels = NDArray[np.uint8]


@cache
def grid_for(width: int, height: int, max_tiles: int = DEMO.max_tiles, tile: int = DEMO.tile) -> tuple[int, int]:
    """Columns and rows whose ratio is nearest the picture's; of equals, the later one when the picture is large."""
    grids = {
        (i, j) for n in range(1, max_tiles + 1) for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= max_tiles
    }
    best, best_gap = (1, 1), inf
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        gap = abs(width / height - i / j)
        if gap < best_gap or (gap == best_gap and width * height > 0.5 * tile * tile * i * j):
            best, best_gap = (i, j), gap
    return best


def cut(picture: Image.Image, geometry: Geometry = DEMO) -> Pixels:
    """`[tiles, tile, tile, 3]` row by row, the thumbnail last when there is more than one."""
    size = geometry.tile
    columns, rows = grid_for(picture.width, picture.height, geometry.max_tiles, size)
    canvas = np.asarray(picture.resize((size * columns, size * rows), Image.Resampling.BICUBIC))
    tiles = canvas.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    if columns * rows == 1:
        return tiles
    return np.concatenate([tiles, frame_tile(picture, geometry)])


def frame_tile(picture: Image.Image, geometry: Geometry = DEMO) -> Pixels:
    """`[1, tile, tile, 3]`: a video frame, or a thumbnail."""
    side = geometry.tile
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))[None]
