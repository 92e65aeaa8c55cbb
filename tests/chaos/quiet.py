"""Whether an engine computes, seen from outside: by the processor time that its process uses."""

import time
from collections.abc import Sequence

import psutil

LOOK_S = 0.1
IDLE = 0.3
"""An engine that idles computes for less than this share of a look; one that decodes, for nearly all of it."""
QUIET_LOOKS = 4
LIMIT_S = 20.0


def until_quiet(engines: Sequence[psutil.Process]) -> float:
    """The instant since which no engine has computed. Fails when one goes on for LIMIT_S."""
    end = time.monotonic() + LIMIT_S
    quiet_since, looks = time.monotonic(), 0
    while looks < QUIET_LOOKS:
        assert time.monotonic() < end, f"an engine still computes after {LIMIT_S:g} s"
        if busy(engines):
            quiet_since, looks = time.monotonic(), 0
        else:
            looks += 1
    return quiet_since


def busy(engines: Sequence[psutil.Process]) -> bool:
    """Whether one of them computes for the next moment."""
    before = [_computed_s(engine) for engine in engines]
    time.sleep(LOOK_S)
    return any(_computed_s(engine) - b > IDLE * LOOK_S for engine, b in zip(engines, before, strict=True))


def _computed_s(engine: psutil.Process) -> float:
    times = engine.cpu_times()
    return float(times.user + times.system)
