"""The wall clock that all processes of a cluster see, to be set. Needs a C compiler on the machine; without one the
clock is the machine's own, and cannot be set."""

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """`folder` must be open to every user that runs a process of the cluster."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        self._set_by = folder / "clock"
        self.obstacle = self._build()
        """Why it cannot be set; empty when it can."""
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process must be started with to see this clock."""
        if self.obstacle:
            return {}
        others = os.environ.get("LD_PRELOAD")
        return {
            "LD_PRELOAD": f"{self._library}:{others}" if others else str(self._library),
            "CHAOS_CLOCK": str(self._set_by),
        }

    def set(self, seconds: int) -> None:
        """Ahead of the machine's clock by so much; below 0: behind it. In place: it is mapped into the processes."""
        mode = "r+b" if self._set_by.exists() else "wb"
        with self._set_by.open(mode) as file:
            file.write(struct.pack("=q", seconds))

    def _build(self) -> str:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            return "the clock cannot be set: there is no C compiler here"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"the clock cannot be set: {compiler} says {built.stderr[-300:]!r}" if built.returncode else ""


@contextlib.contextmanager
def clock(folder: Path) -> Iterator[Clock]:
    """Of everything that is started meanwhile, our own children's children included."""
    folder.chmod(0o711)
    made = Clock(folder)
    before = dict(os.environ)
    os.environ.update(made.environment)
    try:
        yield made
    finally:
        os.environ.clear()
        os.environ.update(before)
