"""A bar on a terminal, elsewhere a line per tenth. Knows nothing of what is being done."""

import sys
from typing import TextIO

_WIDTH = 30


class Progress:
    """Of one task of a tool, named `task`."""

    def __init__(self, task: str, stream: TextIO | None = None) -> None:
        self._task = task
        self._stream = sys.stderr if stream is None else stream
        self._tenths = 0

    def tell(self, done: float, what: str) -> None:
        """`done` from 0 to 1; `what` is at hand."""
        if self._stream.isatty():
            filled = round(done * _WIDTH)
            bar = "█" * filled + "░" * (_WIDTH - filled)
            end = "\n" if done >= 1 else ""
            self._stream.write(f"\r\x1b[K{self._task} {bar} {100 * done:3.0f} % {what}{end}")
            self._stream.flush()
        elif int(done * 10) > self._tenths:
            self._tenths = int(done * 10)
            print(f"{self._task} {100 * done:3.0f} % {what}", file=self._stream, flush=True)
