"""What an engine can take: every bound a generation must keep, checked before anything is allocated for it.

Knows numbers only, so that every backend refuses the same things with the same words.
"""

import math
from dataclasses import dataclass

from worker.engine.generation import Generation, Image, Sampling
from worker.engine.protocol import Rejected

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
_BIAS_MAX = 100.0
_LOGPROBS_MAX = 20
_TOP_K_MAX = 2**31 - 1
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """`capacity` is the most tokens of one sequence, prompt and answer: the model's context or the whole KV cache,
    whichever is less. `tile_size` in pixels."""

    vocab_size: int
    capacity: int
    tokens_per_tile: int
    tile_size: int

    def check(self, generation: Generation) -> int:
        """How many tokens may be generated in all: `max_tokens`, cut where the capacity ends. Raises Rejected when
        the generation is malformed or its prompt leaves no room for one token."""
        if generation.max_tokens < 1:
            raise Rejected("invalid_prompt", f"max_tokens is {generation.max_tokens}, it must be at least 1")
        if generation.min_tokens < 0:
            raise Rejected("invalid_sampling", f"min_tokens is {generation.min_tokens}, it must not be negative")
        if generation.min_tokens and generation.grammar is not None:
            raise Rejected(
                "invalid_sampling", "min_tokens cannot go with a grammar, which decides where the end may be"
            )
        self._check_images(generation.images)
        self._check_ids(generation)
        _check_sampling(generation.sampling, self.vocab_size)
        room = self.capacity - len(generation.prompt_ids)
        if room < 1:
            raise Rejected(
                "context_length_exceeded",
                f"the prompt has {len(generation.prompt_ids)} tokens; with at least one token of the answer it must "
                f"fit into {self.capacity}",
            )
        return min(generation.max_tokens, room)

    def _check_images(self, images: list[Image]) -> None:
        per_tile = 3 * self.tile_size**2
        for n, image in enumerate(images):
            if image.tiles < 1:
                raise Rejected("invalid_image", f"image {n} has {image.tiles} tiles, it must have at least 1")
            if len(image.pixels) != image.tiles * per_tile:
                raise Rejected(
                    "invalid_image",
                    f"image {n} has {len(image.pixels)} bytes; {image.tiles} tiles of {self.tile_size}×"
                    f"{self.tile_size} RGB pixels are {image.tiles * per_tile}",
                )
            if len(image.digest) != _DIGEST_BYTES:
                raise Rejected(
                    "invalid_image", f"the digest of image {n} has {len(image.digest)} bytes, not {_DIGEST_BYTES}"
                )

    def _check_ids(self, generation: Generation) -> None:
        if not generation.prompt_ids:
            raise Rejected("invalid_prompt", "the prompt has no tokens")
        visual = sum(image.tiles for image in generation.images) * self.tokens_per_tile
        expected = self.vocab_size
        for place, token in enumerate(generation.prompt_ids):
            if 0 <= token < self.vocab_size:
                continue
            if token != expected or token >= self.vocab_size + visual:
                raise Rejected(
                    "invalid_prompt",
                    f"prompt_ids[{place}] is {token}; ids are below {self.vocab_size}, and the {visual} visual tokens "
                    f"of the images count up from there",
                )
            expected += 1
        if expected != self.vocab_size + visual:
            found = expected - self.vocab_size
            raise Rejected("invalid_prompt", f"the prompt has {found} visual tokens, its images have {visual}")
        for name in ("generated", "stop_ids"):
            for place, token in enumerate(getattr(generation, name)):
                if not 0 <= token < self.vocab_size:
                    raise Rejected("invalid_prompt", f"{name}[{place}] is {token}, not in 0…{self.vocab_size - 1}")


def _check_sampling(sampling: Sampling, vocab_size: int) -> None:
    for name, (low, high) in _RANGES.items():
        value = getattr(sampling, name)
        if not low <= value <= high:
            raise Rejected("invalid_sampling", f"{name} is {value}, not in {low:g}…{high:g}")
    if not 0 <= sampling.top_k <= _TOP_K_MAX:
        raise Rejected("invalid_sampling", f"top_k is {sampling.top_k}; it is 1…{_TOP_K_MAX}, or 0 for off")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= _LOGPROBS_MAX:
        raise Rejected("invalid_sampling", f"logprobs is {sampling.logprobs}, not in 0…{_LOGPROBS_MAX}")
    for token, value in sampling.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise Rejected("invalid_sampling", f"logit_bias names token {token}, not in 0…{vocab_size - 1}")
        if math.isnan(value) or abs(value) > _BIAS_MAX:
            raise Rejected("invalid_sampling", f"logit_bias of {token} is {value}, not in ±{_BIAS_MAX:g}")
