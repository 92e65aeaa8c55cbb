"""Rotary positions: cos and sin for each token, with dynamic NTK scaling beyond the trained length. Knows no sequences.

A token is rotated by the base for the length that its sequence had when the token was first computed: the whole
prompt's for a token of the prompt, its own place + 1 for a generated one. That is what the models' own code does in
prefill and cached decode when it starts anew for each sequence; keys in the cache keep the rotation they came with.
"""

import torch

from worker.engine.config import DecoderConfig


class Rope:
    """Tables for the trained positions; further ones are computed when they are asked for."""

    def __init__(self, config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._config = config
        self._dtype = dtype
        self._exponents = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
        positions = torch.arange(config.trained_length, device=device)
        base = torch.tensor([config.rope_theta], device=device)
        self._cos, self._sin = self._tables(positions, base)

    def at(self, positions: torch.Tensor, lengths: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and signed sin, `[T, 1, head_dim]`. `lengths` int64 [T] as in ForwardBatch: None when no sequence is
        longer than the trained length. A token of a shorter sequence gets the same numbers in either case."""
        if lengths is None:
            return self._cos.index_select(0, positions)[:, None], self._sin.index_select(0, positions)[:, None]
        trained = self._config.trained_length
        short = (lengths <= trained)[:, None]
        near = positions.clamp(max=trained - 1)
        cos, sin = self._tables(positions, self._bases(lengths))
        cos, sin = torch.where(short, self._cos[near], cos), torch.where(short, self._sin[near], sin)
        return cos[:, None], sin[:, None]

    def _bases(self, lengths: torch.Tensor) -> torch.Tensor:
        """Dynamic NTK: `theta × (factor × length / trained − (factor − 1)) ^ (dim / (dim − 2))`."""
        dim, factor = self._config.head_dim, self._config.rope_factor or 1.0
        stretch = factor * lengths.double() / self._config.trained_length - (factor - 1)
        # Below the trained length the caller takes the tables; a negative stretch would only make NaN of nothing.
        stretched: torch.Tensor = self._config.rope_theta * stretch.clamp(min=1.0) ** (dim / (dim - 2))
        return stretched.float()

    def _tables(self, positions: torch.Tensor, bases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[T, head_dim]` each, computed in fp32. The sign of the first half is in sin: see `decoder.rotate`."""
        angles = positions[:, None].float() * (1.0 / bases[:, None] ** self._exponents)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), dim=1).to(self._dtype), torch.cat((-sin, sin), dim=1).to(self._dtype)
