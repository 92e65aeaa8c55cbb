"""The seam every backend fits: submit, cancel, step, stats, close."""

from collections.abc import Sequence
from typing import Protocol

from worker.engine.generation import EngineStats, Generation, TokenOutput


class Rejected(Exception):
    """The generation can never run here. `code` is one of `context_length_exceeded`, `invalid_prompt`,
    `invalid_image`, `invalid_sampling`, `invalid_json_schema`, `duplicate_id`; the message names the offending
    numbers."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Engine(Protocol):
    """Not thread-safe: one thread owns it."""

    def submit(self, generation: Generation) -> None:
        """Queues a generation. Raises Rejected when it can never fit or is malformed. Ids must be unique among
        those alive."""
        ...

    def cancel(self, generation_id: str) -> None:
        """Ends a generation; the next step's outputs hold its last TokenOutput (CANCELLED). Unknown ids are
        ignored."""
        ...

    def step(self) -> Sequence[TokenOutput]:
        """Runs one iteration: a chunk of prefill and one decode step. Returns at once with nothing when idle. A
        fault of one sequence ends that sequence (ERROR); what endangers all raises."""
        ...

    def has_work(self) -> bool: ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
