"""Batches on the training device: fresh ones as fast as the drawing processes make them, older ones in between.

A thread moves fresh batches in; the training loop never waits for drawing once the pool is filled.
"""

import threading
from collections import deque
from random import Random

import torch
from torch.utils.data import DataLoader

from tools.demo_model.batch import Batch, TrainingStream


class Pool:
    def __init__(self, first: int, batch: int, workers: int, capacity: int, device: torch.device) -> None:
        self._loader = DataLoader(
            TrainingStream(first, batch),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=8 if workers else None,
            pin_memory=device.type == "cuda",
            multiprocessing_context="spawn" if workers else None,
        )
        self._capacity = capacity
        self._device = device
        self._batches: list[Batch] = []
        self._fresh: deque[Batch] = deque(maxlen=64)
        self._ended = False
        self._rng = Random(first)
        self._changed = threading.Condition()
        self._stopped = False
        self.drawn = 0
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        try:
            self._move_all()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _move_all(self) -> None:
        for batch in self._loader:
            moved = batch.to(self._device)
            with self._changed:
                if self._stopped:
                    return
                self._fresh.append(moved)
                if len(self._batches) < self._capacity:
                    self._batches.append(moved)
                else:
                    self._batches[self.drawn % self._capacity] = moved
                self.drawn += 1
                self._changed.notify()

    def take(self) -> Batch:
        """A fresh batch when there is one, else any of the kept ones; waits only while there is none at all. Raises
        RuntimeError when drawing failed."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._batches) or self._ended)
            if self._ended:
                raise RuntimeError("the drawing processes ended: see their traceback above")
            if self._fresh:
                return self._fresh.pop()
            return self._rng.choice(self._batches)

    def wait_for(self, batches: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._batches) >= min(batches, self._capacity) or self._ended)

    def stop(self) -> None:
        """Ends the drawing processes; waits for the batch in hand."""
        with self._changed:
            self._stopped = True
        self._thread.join(timeout=60)
