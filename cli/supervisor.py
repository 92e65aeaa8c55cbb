"""Keeps programs running: starts them, restarts the one that crashes, stops them in order within a bounded time.

Knows nothing of what the programs do, nor of signals or terminals: its owner calls `tick` and is told what happened.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.program import Process, Program

FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 30.0
STEADY_S = 60.0
"""A child that ran this long has earned a fresh back-off."""

Report = Callable[[str, str], None]
"""Called with a program's name and a line."""


class ProgramFailed(Exception):
    """A program ended before it was ready. `tail` is the end of its log."""

    def __init__(self, name: str, code: int, log: Path, tail: str) -> None:
        super().__init__(f"{name} ended with status {code} before it was ready; its log: {log}")
        self.tail = tail


@dataclass(slots=True)
class _Kept:
    child: Process
    crashes: int = 0
    restart_at: float | None = None


class Supervisor:
    """Owns the processes of `programs`; their output goes to `<logs>/<name>.log`. `report` is told what happens to
    them, `listen` what they write."""

    def __init__(self, programs: Sequence[Program], logs: Path, report: Report, listen: Report) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._kept = [_Kept(Process(program, logs / f"{program.name}.log")) for program in programs]
        self._report = report
        self._listen = listen

    def start(self) -> None:
        """Starts every program, in the order given."""
        for kept in self._kept:
            kept.child.start()

    def starting(self) -> list[str]:
        """Looks after programs that have not all been ready yet; returns the names of those that are not. Raises
        ProgramFailed when one ends: a program that cannot start would only fail again."""
        waiting = []
        for kept in self._kept:
            code = kept.child.poll()
            self._hear(kept)
            if code is not None:
                child = kept.child
                raise ProgramFailed(child.program.name, code, child.log, child.tail())
            if not kept.child.ready:
                waiting.append(kept.child.program.name)
        return waiting

    def tick(self) -> None:
        """Passes on what the programs wrote, notices the dead, restarts those whose back-off is over."""
        for kept in self._kept:
            if kept.restart_at is None:
                code = kept.child.poll()
                self._hear(kept)
                if code is not None:
                    self._bury(kept, code)
            elif time.monotonic() >= kept.restart_at:
                kept.restart_at = None
                kept.child.start()
                self._report(kept.child.program.name, f"started again (pid {kept.child.pid})")

    def processes(self) -> dict[str, int]:
        """Process ids of what runs now, by name."""
        return {
            kept.child.program.name: kept.child.pid
            for kept in self._kept
            if kept.child.pid is not None and kept.child.poll() is None
        }

    def stop(self, forced: Callable[[], bool]) -> None:
        """Stops stage after stage: SIGTERM, then SIGKILL to the group once a program's `stop_s` is over or
        `forced()` says so. Nothing of any group is left when it returns."""
        for stage in sorted({kept.child.program.stage for kept in self._kept}):
            children = [kept.child for kept in self._kept if kept.child.program.stage == stage]
            for child in children:
                child.terminate()
            end = time.monotonic() + max(child.program.stop_s for child in children)
            while any(child.poll() is None for child in children) and time.monotonic() < end and not forced():
                time.sleep(0.05)
            for child in children:
                if child.poll() is None and not forced():
                    self._report(child.program.name, f"did not end within {child.program.stop_s:.0f} s; killed")
                child.kill()

    def _hear(self, kept: _Kept) -> None:
        for line in kept.child.new_lines():
            self._listen(kept.child.program.name, line)

    def _bury(self, kept: _Kept, code: int) -> None:
        kept.child.kill()
        if time.monotonic() - kept.child.started_at > STEADY_S:
            kept.crashes = 0
        delay = min(FIRST_BACK_OFF_S * 2**kept.crashes, LONGEST_BACK_OFF_S)
        kept.crashes += 1
        kept.restart_at = time.monotonic() + delay
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        self._report(kept.child.program.name, f"{how}; starts again in {delay:.1f} s (log: {kept.child.log})")
