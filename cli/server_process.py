"""One server as a child process: started with its output in a log file, stopped with a signal, never left behind.

Knows nothing of what the server speaks.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil


class ServicesError(Exception):
    """An embedded service cannot run; the message says which, where, and what to do."""


class Child:
    """A process of ours. It gets a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Raises ServicesError when the process was never started or was stopped."""
        if self._process is None:
            raise ServicesError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self, command: Sequence[str | Path], user: str | None = None) -> None:
        """`user` None: the user who runs us."""
        identity = {"user": user, "group": user, "extra_groups": []} if user else {}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity,
            )

    def wait_ready(self, answers: Callable[[], bool], limit_s: float) -> None:
        """Waits until the server answers. Raises ServicesError, with the end of its log, when it exits or takes
        longer than the limit."""
        deadline = time.monotonic() + limit_s
        while not answers():
            if not self.running:
                raise ServicesError(f"{self.name} did not start:\n{self.log_end()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServicesError(f"{self.name} did not answer within {limit_s:g} s:\n{self.log_end()}")
            time.sleep(0.02)

    def stop(self, sig: signal.Signals, limit_s: float) -> None:
        """Asks with the signal, kills after the limit. Harmless when the process is gone already."""
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(sig)
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def log_end(self, lines: int = 20) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or f"(nothing in {self.log})"


def stop_orphan(pid_file: Path, executable: str, folder: Path, sig: signal.Signals, limit_s: float = 30.0) -> None:
    """Stops the server that a crashed supervisor left behind: the process in the pid file, but only when it is this
    executable and works in this data folder, since process ids are used again."""
    try:
        process = psutil.Process(int(pid_file.read_text().split(maxsplit=1)[0]))
        ours = process.name() == executable and Path(process.cwd()) == folder.resolve()
    except (OSError, ValueError, IndexError, psutil.Error):
        return
    if not ours:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, sig)
        try:
            process.wait(limit_s)
        except psutil.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(limit_s)
