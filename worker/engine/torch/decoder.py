"""One Llama-family decoder over packed tokens and a paged cache. Knows neither sequences nor pages: its attention plan
does. Flags in DecoderConfig make it Qwen2.5, InternLM2.5 or InternLM3."""

import torch
import torch.nn.functional as F
from torch import nn

from worker.engine.config import DecoderConfig
from worker.engine.torch.attention import AttentionPlan


class DecoderLayer(nn.Module):
    """`qkv` holds the rows of query, key and value one after the other, `gate_up` those of gate and up."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.input_norm = nn.Parameter(torch.empty(config.hidden))
        self.qkv = nn.Linear(config.hidden, query + 2 * kv, bias=config.qkv_bias)
        self.out = nn.Linear(query, config.hidden, bias=config.out_bias)
        self.mlp_norm = nn.Parameter(torch.empty(config.hidden))
        self.gate_up = nn.Linear(config.hidden, 2 * config.mlp, bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp, config.hidden, bias=config.mlp_bias)
        self._heads, self._kv_heads, self._head_dim = config.heads, config.kv_heads, config.head_dim
        self._eps = config.eps

    def forward(
        self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, plan: AttentionPlan, layer: int
    ) -> torch.Tensor:
        tokens, width = hidden.shape
        normed = F.rms_norm(hidden, (width,), self.input_norm, self._eps)
        qkv = self.qkv(normed).view(tokens, -1, self._head_dim)
        rotate(qkv[:, : self._heads + self._kv_heads], cos, sin)
        keys_values = qkv[:, self._heads :].view(tokens, 2, self._kv_heads, self._head_dim)
        hidden = hidden + self.out(plan.attend(layer, qkv[:, : self._heads], keys_values))
        normed = F.rms_norm(hidden, (width,), self.mlp_norm, self._eps)
        gate, up = self.gate_up(normed).chunk(2, dim=-1)
        return torch.add(hidden, self.down(F.silu(gate).mul_(up)))


class Decoder(nn.Module):
    """Embedding table, layers, final norm and output head. `head` is None when the table is the head too."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.Parameter(torch.empty(config.hidden))
        self.head = None if config.tied else nn.Linear(config.hidden, config.vocab_size, bias=False)
        self._eps = config.eps

    def forward(
        self, embeds: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor], plan: AttentionPlan
    ) -> torch.Tensor:
        """`[T, hidden]` → `[T, hidden]` after the final norm. `rotation` is the tokens' cos and sin: see `Rope`."""
        cos, sin = rotation
        hidden = embeds
        for i, layer in enumerate(self.layers):
            hidden = layer(hidden, cos, sin, plan, i)
        return F.rms_norm(hidden, (hidden.shape[1],), self.norm, self._eps)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = F.linear(hidden, self.table) if self.head is None else self.head(hidden)
        return logits.float()


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """RoPE in place on `[T, heads, head_dim]`, the two halves of a head being the parts of the rotated pairs. The sign
    of the first half is in `sin` already, so that a roll takes the place of split, negate and join."""
    rolled = heads.roll(heads.shape[-1] // 2, dims=-1)
    heads.mul_(cos).addcmul_(rolled, sin)
