"""The sequences that decode together, kept as tensors from step to step; made anew only when one joins or leaves."""

from collections.abc import Sequence as Many

import numpy as np
import torch

from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.sampling_plan import plan_of
from worker.engine.torch.sequence import Sequence


class DecodeBatch:
    """`ids` int64 [B]: each sequence's newest token, not yet in the cache. `drawn` int64 [B] on the host: how many
    tokens each has generated. Columns of the page table are there for all that the leases were promised."""

    def __init__(self, sequences: Many[Sequence], page_size: int, device: torch.device) -> None:
        self.sequences = list(sequences)
        self.plan = plan_of(sequences, device)
        self.drawn = np.array([s.generated for s in sequences], dtype=np.int64)
        self.ids = torch.tensor([s.ids[-1] for s in sequences], dtype=torch.int64, device=device)
        self._page_size = page_size
        self._trained_length = min(s.trained_length for s in sequences)
        self._positions = torch.tensor([s.computed for s in sequences], dtype=torch.int64, device=device)
        self._q_lens = (1,) * len(self.sequences)
        width = max(len(s.lease.pages) + s.lease.promised for s in sequences)
        table = np.zeros((len(self.sequences), width), dtype=np.int32)
        for row, sequence in enumerate(sequences):
            table[row, : len(sequence.lease.pages)] = sequence.lease.pages
        self._table = torch.from_numpy(table).to(device)

    def set_page(self, row: int, page: int) -> None:
        """Puts the page that a row's next token begins into the table."""
        self._table[row, self.sequences[row].computed // self._page_size] = page

    def forward_batch(self) -> ForwardBatch:
        """Views of the batch's own tensors, valid until `advance`."""
        kv_lens = tuple([s.computed + 1 for s in self.sequences])
        pages = self._table[:, : -(-max(kv_lens) // self._page_size)]
        own = pages.gather(1, (self._positions // self._page_size)[:, None])[:, 0]
        slots = own * self._page_size + self._positions % self._page_size
        lengths = self._positions + 1 if max(kv_lens) > self._trained_length else None
        return ForwardBatch(self._positions, slots, pages, self._q_lens, kv_lens, lengths)

    def advance(self, ids: torch.Tensor) -> None:
        """Takes the drawn tokens as the next input."""
        self.ids = ids
        self._positions += 1
        self.drawn += 1
