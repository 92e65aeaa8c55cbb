"""InternVL's dynamic resolution: from a picture to its tiles. Knows no formats and no prompt.

A picture is resized to its grid (`jobs.tiling`) with Pillow's antialiased bicubic filter, cut row by row, and followed
by a thumbnail of the whole when there is more than one tile. Source: the model family's reference preprocessing
(`dynamic_preprocess`).
"""

from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.tiling import grid_of
from worker.engine import generation
from worker.engine.config import TilingConfig


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
