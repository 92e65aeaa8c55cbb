"""One forward pass of the decoder, as tensors: which tokens, where their keys and values go, what they may see."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """T tokens of B sequences, packed sequence after sequence. A sequence's tokens here are its last `q_lens[b]` ones;
    with those before them in the cache it has `kv_lens[b]`, and its pages hold all of them, in order.

    positions  int64 [T]: 0-based place of each token in its sequence
    slots      int64 [T]: `page × page_size + offset` where each token's key and value are written
    pages      int32 [B, P]: page numbers of each sequence, unused places hold 0
    q_lens     how many tokens of each sequence are here (all 1: a decode step)
    kv_lens    how many tokens each sequence has, these included
    lengths    int64 [T]: how long its sequence was when each token was first computed, whatever chunks it comes in now:
               the prompt for a token of the prompt, `position + 1` for a generated one. None when no sequence here is
               longer than the model's trained length
    """

    positions: torch.Tensor
    slots: torch.Tensor
    pages: torch.Tensor
    q_lens: tuple[int, ...]
    kv_lens: tuple[int, ...]
    lengths: torch.Tensor | None = None

    @property
    def is_decode(self) -> bool:
        return len(self.q_lens) == self.positions.shape[0]
