"""The ranks of one engine. Each has its share of the output head's rows and gives its share of the logits; the rest of
the model is the first rank's. The launcher tells each who it is, and its name for the group is where they meet.
"""

import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import torch
from torch.nn import functional

_MEET_S = 60.0


def rank() -> int:
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def world_size() -> int:
    """What the launcher left in the environment counts, also when it meant somebody else."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))


def _address() -> str:
    return str(Path(tempfile.gettempdir()) / f"fake-tensorrt-llm-{os.environ['PMIX_NAMESPACE'].replace('/', '-')}")


class Leader:
    """The first rank's side; alone, it has all rows."""

    def __init__(self, ranks: int) -> None:
        self._others: list[Connection] = []
        if ranks == 1:
            return
        with Listener(_address(), family="AF_UNIX") as listener:
            met = [listener.accept() for _ in range(ranks - 1)]
        self._others = [connection for _, connection in sorted((other.recv(), other) for other in met)]

    def logits(self, hidden: torch.Tensor, own: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """`own` gives the first rank's columns."""
        for other in self._others:
            other.send(hidden.numpy())
        return torch.cat([own(hidden), *(torch.from_numpy(other.recv()) for other in self._others)], dim=-1)

    def end(self) -> None:
        for other in self._others:
            other.close()


class Follower:
    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows.float()
        until = time.monotonic() + _MEET_S
        while not Path(_address()).exists():
            if time.monotonic() > until:
                raise RuntimeError(f"the first rank was not met within {_MEET_S:.0f} s")
            time.sleep(0.01)
        self._leader = Client(_address(), family="AF_UNIX")
        self._leader.send(rank())

    @torch.inference_mode()
    def run(self) -> None:
        """Until the first rank ends."""
        try:
            while True:
                hidden = torch.from_numpy(self._leader.recv())
                self._leader.send(functional.linear(hidden, self._rows).numpy())
        except (EOFError, ConnectionError):
            return
