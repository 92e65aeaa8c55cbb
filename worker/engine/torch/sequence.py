"""One generation while the engine has it: its tokens, how far its keys and values are computed, its images.

Knows nothing of other sequences; the scheduler moves it, the engine feeds it.
"""

from __future__ import annotations

import sys
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.engine.generation import Finish, Generation, Image
from worker.engine.grammar import Matcher
from worker.engine.torch.block_cache import Lease
from worker.engine.torch.prefix_keys import PrefixKeys

if TYPE_CHECKING:
    import torch

Ids = NDArray[np.int64]


class Stage(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODE = auto()
    ENDED = auto()


class Visual:
    """One image of a sequence. `positions` are its tokens' places in the sequence, ascending; `embedding` is
    `[len(positions), hidden]` once encoded; `settled` once its tiles are counted as encoded or reused; `salt` is the
    generation's."""

    __slots__ = ("embedding", "image", "positions", "salt", "settled")

    def __init__(self, image: Image, positions: Ids, salt: int) -> None:
        self.image = image
        self.salt = salt
        self.positions = positions
        self.embedding: torch.Tensor | None = None
        self.settled = False

    @property
    def first(self) -> int:
        return int(self.positions[0])

    @property
    def last(self) -> int:
        return int(self.positions[-1])


class Sequence:
    """`computed` tokens have their keys and values in the cache (or will by the forward being prepared); `prefill_len`
    is the prompt with what an earlier attempt generated; `limit` is how many tokens may be generated in all, and
    `max_kv` the most tokens that will ever be in the cache; `trained_length` is the model's. `inputs` int64
    [prefill_len] has 0 at visual tokens."""

    def __init__(
        self,
        generation: Generation,
        limit: int,
        vocab_size: int,
        tokens_per_tile: int,
        page_size: int,
        trained_length: int = sys.maxsize,
    ) -> None:
        prompt = np.asarray(generation.prompt_ids, dtype=np.int64)
        places = np.flatnonzero(prompt >= vocab_size)
        sizes = [image.tiles * tokens_per_tile for image in generation.images]
        keyed = prompt.copy()
        prompt[places] = 0
        self.id = generation.id
        self.generation = generation
        self.visuals: list[Visual] = []
        digests: dict[int, bytes] = {}
        for image, positions in zip(generation.images, _split(places, sizes), strict=True):
            self.visuals.append(Visual(image, positions, generation.salt))
            keyed[positions] = -1 - np.arange(len(positions))
            for page in np.unique(positions // page_size).tolist():
                digests[page] = digests.get(page, b"") + image.digest
        self.inputs: Ids = np.concatenate([prompt, np.asarray(generation.generated, dtype=np.int64)])
        self.text_ids: list[int] = np.delete(prompt, places).tolist()
        self.prompt_len = len(prompt)
        self.prefill_len = len(self.inputs)
        self.generated = len(generation.generated)
        self.limit = limit
        self.max_kv = self.prompt_len + limit - 1
        self.stop_ids = frozenset(generation.stop_ids)
        self.ids: list[int] = [*keyed.tolist(), *generation.generated]
        self.trained_length = trained_length
        self.keys = PrefixKeys(self.ids, page_size, self._salt(), digests)
        self.reusable_pages = (self.prefill_len - 1) // page_size
        self.page_size = page_size
        self.matcher: Matcher | None = None
        self.stage = Stage.WAITING
        self.computed = 0
        self.reused = 0
        self.proven = False
        self.announced = False
        self.slot = -1
        self.lease = Lease(promised=0)

    @property
    def ready_until(self) -> int:
        """How far prefill can go: up to the first visual token that is neither computed nor encoded."""
        for visual in self.visuals:
            if visual.embedding is None and visual.last >= self.computed:
                return max(visual.first, self.computed)
        return self.prefill_len

    def lengths_at(self, positions: Ids) -> Ids:
        """How long this sequence was when the tokens at `positions` were first computed: see ForwardBatch."""
        return np.maximum(positions + 1, self.prompt_len)

    def _salt(self) -> str:
        """Keys of a prompt beyond the trained length are good for prompts of its very length alone. What a shorter
        one goes on to beyond the trained length depends on places only."""
        salt = str(self.generation.salt)
        return salt if self.prompt_len <= self.trained_length else f"{salt}:{self.prompt_len}"

    def already_ended(self) -> Finish | None:
        """Whether the tokens of an earlier attempt end it: nothing is left to draw."""
        generated = self.generation.generated
        return self._finish(generated[-1]) if generated else None

    def append(self, token: int) -> Finish | None:
        """Takes a drawn token; says whether it is the last."""
        self.ids.append(token)
        self.generated += 1
        return self._finish(token)

    def breaks_grammar(self, token: int) -> str:
        """Follows the grammar by one drawn token; says why when it cannot be followed, which a mask that was applied
        rules out but for a grammar that has become too complex."""
        if self.matcher is None:
            return ""
        if not self.matcher.error and token not in self.stop_ids:
            self.matcher.take([token])
        return self.matcher.error

    def _finish(self, token: int) -> Finish | None:
        if token in self.stop_ids:
            return Finish.STOP
        return Finish.LENGTH if self.generated >= self.limit else None


def _split(places: Ids, sizes: list[int]) -> list[Ids]:
    ends = np.cumsum(sizes, dtype=np.int64)[:-1]
    return np.split(places, ends) if sizes else []
