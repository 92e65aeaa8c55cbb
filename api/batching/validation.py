"""Whether a batch's file is right as a whole: every line checked, none kept."""

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import BinaryIO

from api.batching.lines import Faulty, Line, raw_lines, read_line
from jobs.batches import Endpoint, LineFault

MOST_FAULTS = 100
"""How many are told; the rest of the file is not read then."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_lines: int
    max_line_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """`faults` empty: the file is right, and all its `lines` ask for `model`."""

    lines: int
    model: str
    faults: tuple[LineFault, ...]


class Stopped(Exception):
    """The process is going down."""


class Validation:
    """Of one file. Memory holds 16 bytes of each custom_id, whatever the size of the file."""

    def __init__(self, endpoint: Endpoint, models: Collection[str], limits: Limits) -> None:
        self._endpoint = endpoint
        self._models = models
        self._limits = limits
        self._lines = 0
        self._model = ""
        self._seen: set[bytes] = set()
        self._faults: list[LineFault] = []

    def run(self, file: BinaryIO, stopping: Callable[[], bool] = lambda: False) -> Found:
        """Raises BlobsUnavailable, Stopped."""
        try:
            for raw in raw_lines(file, 1, 0, self._limits.max_line_bytes):
                if stopping():
                    raise Stopped
                self._lines += 1
                if self._lines > self._limits.max_lines:
                    message = f"The file has more than {self._limits.max_lines} requests."
                    self._faults.append(LineFault("too_many_requests", message, raw.number))
                    break
                try:
                    self._check(read_line(raw, self._endpoint))
                except Faulty as exc:
                    self._faults.append(exc.fault)
                if len(self._faults) == MOST_FAULTS:
                    break
        except Faulty as exc:
            self._faults.append(exc.fault)
        if not self._lines and not self._faults:
            self._faults.append(LineFault("empty_file", "The file has no requests."))
        return Found(self._lines, self._model, tuple(self._faults))

    def _check(self, line: Line) -> None:
        name = hashlib.blake2b(line.custom_id.encode(), digest_size=16).digest()
        if name in self._seen:
            message = f"The custom_id {line.custom_id[:100]!r} is that of another line, too; each must be unique."
            raise Faulty(LineFault("duplicate_custom_id", message, line.number, "custom_id"))
        self._seen.add(name)
        if line.model not in self._models:
            message = f"The model {line.model[:100]!r} does not exist here."
            raise Faulty(LineFault("model_not_found", message, line.number, "body.model"))
        self._model = self._model or line.model
        if line.model != self._model:
            message = f"The model {line.model!r} is not that of the lines before, {self._model!r}; a batch has one."
            raise Faulty(LineFault("mismatched_model", message, line.number, "body.model"))
