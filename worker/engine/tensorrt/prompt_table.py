"""A request's visual tokens as the executor takes them: one table of embeddings, and for each token of the prompt the
id that says what its virtual id stands for, so that cached keys of one picture are never those of another.

The executor throws for a wrong table while it computes, and then every request that runs is lost: nothing wrong may
reach it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from worker.engine.generation import Image

_WORD_BYTES = 8


class TableError(Exception):
    """The table is not what the engine was built for; the message names expected and found."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """What the engine was built for. `rows` is the most of one request."""

    rows: int
    width: int
    dtype: torch.dtype

    def check(self, table: torch.Tensor, visual: int) -> None:
        """`visual` is how many tokens of the prompt the table is for. Raises TableError."""
        if table.dim() != 2 or table.shape[1] != self.width:
            raise TableError(f"the prompt table has shape {list(table.shape)}, the engine takes [rows, {self.width}]")
        if table.dtype != self.dtype:
            raise TableError(f"the prompt table is {table.dtype}, the engine {self.dtype}")
        if len(table) != visual:
            raise TableError(f"the prompt table has {len(table)} rows for {visual} visual tokens")
        if len(table) > self.rows:
            raise TableError(f"the prompt table has {len(table)} rows, the engine takes {self.rows} per request")
        if not table.is_contiguous():
            raise TableError(f"the prompt table's strides are {table.stride()}, it must be contiguous")


def join(embeddings: Sequence[torch.Tensor], over_mpi: bool) -> torch.Tensor:
    """`[tokens, width]` of all images, in their order, finished when this returns: the executor reads it on a stream
    of its own. Over MPI it goes from memory of the host."""
    table = embeddings[0] if len(embeddings) == 1 else torch.cat(tuple(embeddings))
    if over_mpi and table.is_cuda:
        table = table.cpu().pin_memory()
    elif table.is_cuda:
        torch.cuda.current_stream(table.device).synchronize()
    return table.contiguous()


def extra_ids(prompt_ids: Sequence[int], images: Sequence[Image], vocab_size: int, tokens_per_tile: int) -> list[int]:
    """uint64 for each token of the prompt: 0 for text; for an image's j-th token the word j % 4 of its digest, so that
    four tokens of it hold the whole digest. Weights and preprocessing need not be in it: the keys that it guards live
    no longer than the process."""
    visual = (word for image in images for word in _words(image, image.tiles * tokens_per_tile))
    return [next(visual) if token >= vocab_size else 0 for token in prompt_ids]


def _words(image: Image, tokens: int) -> list[int]:
    """Never 0, which means text."""
    starts = range(0, len(image.digest), _WORD_BYTES)
    words = [int.from_bytes(image.digest[start : start + _WORD_BYTES], "big") or 1 for start in starts]
    return [words[j % len(words)] for j in range(tokens)]
