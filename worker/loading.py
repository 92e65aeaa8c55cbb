"""How far the engine's loading is, told to whoever watches: a bar on a terminal, elsewhere at most ten lines of log."""

import logging
import sys
import time
from typing import TextIO

log = logging.getLogger(__name__)

_WIDTH = 30
_PAUSE_S = 1.0


class LoadingReport:
    """Of one start of the engine. Small checkpoints load in an instant: the log is told at most once a second."""

    def __init__(self, stream: TextIO | None = None, pause_s: float = _PAUSE_S) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._pause_s = pause_s
        self._told_at = time.monotonic()
        self._tenths = 0

    def tell(self, done: float, what: str) -> None:
        """`done` from 0 to 1; `what` is being loaded."""
        if self._stream.isatty():
            filled = round(done * _WIDTH)
            end = "\n" if done >= 1 else ""
            bar = "█" * filled + "░" * (_WIDTH - filled)
            # Back to the line's start and clear it: the bar stays one line.
            self._stream.write(f"\r\x1b[Kengine loads {bar} {100 * done:3.0f} % {what}{end}")
            self._stream.flush()
            return
        now = time.monotonic()
        if int(done * 10) > self._tenths and now >= self._told_at + self._pause_s:
            self._tenths, self._told_at = int(done * 10), now
            log.info("engine loads: %3.0f %% %s", 100 * done, what, extra={"action": "engine_loading"})
