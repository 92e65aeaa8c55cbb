"""Several examples of about one length as tensors, and the loader's worker that makes them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import count
from random import Random
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from tools.demo_model.example import Encoder, Example, draw_system
from tools.demo_model.sample import draw_training
from tools.demo_model.tokenizer import build_tokenizer


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids` [B, T] padded on the right; `tiles` [N, size, size, 3] uint8; `visual` [N·tokens]: where the visual tokens
    stand in the flattened ids; `asked` [M]: positions that predict `targets` [M]; `answers` [M]: which answer of the
    batch a target belongs to (0 … answers − 1, in order of examples and rounds)."""

    ids: Tensor
    tiles: Tensor
    visual: Tensor
    asked: Tensor
    targets: Tensor
    answers: Tensor
    cell_characters: Tensor
    cell_things: Tensor

    def to(self, device: torch.device) -> Self:
        return type(self)(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def pin_memory(self) -> Self:
        return type(self)(*(getattr(self, field.name).pin_memory() for field in fields(self)))


def collate(examples: list[Example], context_id: int, multiple: int = 32) -> Batch:
    """Pads to a multiple, so that few different shapes occur."""
    longest = max(len(example.ids) for example in examples)
    length = -(-longest // multiple) * multiple
    ids = np.zeros((len(examples), length), np.int64)
    targets = np.full((len(examples), length), -1, np.int64)
    answers = np.zeros((len(examples), length), np.int64)
    seen = 0
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        targets[row, : len(example.ids)] = example.targets
        answers[row, : len(example.ids)] = example.rounds.astype(np.int64) + seen
        seen += int(example.rounds.max()) + 1
    asked = np.flatnonzero(targets >= 0)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(np.concatenate([example.tiles for example in examples])),
        torch.from_numpy(np.flatnonzero(ids == context_id)),
        torch.from_numpy(asked),
        torch.from_numpy(targets.reshape(-1)[asked]),
        torch.from_numpy(answers.reshape(-1)[asked]),
        torch.from_numpy(np.concatenate([example.cell_characters for example in examples])),
        torch.from_numpy(np.concatenate([example.cell_things for example in examples]).astype(np.int64)),
    )


class TrainingStream(IterableDataset[Batch]):
    """Endless batches; worker w of n draws the conversations `first + w`, `first + w + n`, … each once."""

    def __init__(self, first: int, batch: int, group: int = 8) -> None:
        self._first = first
        self._batch = batch
        self._group = group

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        encoder = Encoder(build_tokenizer())
        seeds = count(self._first + worker, workers)
        while True:
            drawn = [draw_example(encoder, next(seeds)) for _ in range(self._batch * self._group)]
            drawn.sort(key=lambda example: len(example.ids))
            order = list(range(self._group))
            Random(self._first + worker).shuffle(order)
            for part in order:
                yield collate(drawn[part * self._batch : (part + 1) * self._batch], encoder.context)


def draw_example(encoder: Encoder, seed: int) -> Example:
    return encoder.encode(draw_training(seed), draw_system(Random(f"system {seed}")))
