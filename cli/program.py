"""One program and the process that runs it now: its own process group, its output in a log file.

Knows nothing of the other programs, nor of when to start again.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cli import tether

LOG_LIMIT_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `ready` is a pattern of the line that says it works (empty: works once it runs). `stop_s` is how
    long it may take to end after SIGTERM. Programs of a lower `stage` are stopped first."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    ready: str = ""
    stop_s: float = 10.0
    stage: int = 0


class Process:
    """A program's process. Must be started from the main thread: the tether is to the thread that forks."""

    def __init__(self, program: Program, log: Path) -> None:
        self.program = program
        self.log = log
        self.ready = False
        self.started_at = 0.0
        self._popen: subprocess.Popen[bytes] | None = None
        self._read_to = 0
        self._rest = b""

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen is not None else None

    def start(self) -> None:
        """Starts a new process. The log goes on where it was; an overlong one is moved aside first."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            self._read_to, self._rest = out.tell(), b""
            self._popen = subprocess.Popen(
                tether.command(self.program.argv),
                env=dict(self.program.environment),
                cwd=self.program.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.started_at = time.monotonic()
        self.ready = not self.program.ready

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._popen.poll() if self._popen is not None else 0

    def new_lines(self) -> list[str]:
        """What it wrote since the last call, whole lines only."""
        with self.log.open("rb") as file:
            file.seek(self._read_to)
            data = file.read()
        self._read_to += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        texts = [line.decode(errors="replace") for line in lines]
        self.ready = self.ready or any(re.search(self.program.ready, text) for text in texts)
        return texts

    def tail(self, lines: int = 15) -> str:
        """The end of the log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def terminate(self) -> None:
        """Asks the process, and only it, to end: it knows how to end its own children."""
        if self._popen is not None:
            self._popen.terminate()

    def kill(self) -> None:
        """Ends the whole process group at once, also what the process left behind."""
        if self._popen is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
