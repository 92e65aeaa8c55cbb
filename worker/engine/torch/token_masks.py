"""Which tokens the grammars of a batch's rows allow next, as a mask for the sampler. Knows no grammar's inside."""

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from worker.engine.torch.sequence import Sequence

_WORD = 32


@dataclass(frozen=True, slots=True)
class TokenMasks:
    """`rows` int64 [G]: the rows that follow a grammar; `allowed` bool [G, vocab]."""

    rows: torch.Tensor
    allowed: torch.Tensor


def masks_of(sequences: Many[Sequence], vocab_size: int, device: torch.device) -> TokenMasks | None:
    """None when no row follows a grammar. The bits are spread on the device: a row is 8 × smaller on its way there."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.matcher is not None]
    if not rows:
        return None
    bits = np.zeros((len(rows), -(-vocab_size // _WORD)), dtype=np.int32)
    for n, row in enumerate(rows):
        matcher = sequences[row].matcher
        assert matcher is not None
        matcher.allow(bits, n)
    words = torch.from_numpy(bits).to(device)[:, :, None]
    spread = (words >> torch.arange(_WORD, dtype=torch.int32, device=device)) & 1
    allowed = spread.view(len(rows), -1)[:, :vocab_size].bool()
    return TokenMasks(torch.tensor(rows, dtype=torch.int64, device=device), allowed)
