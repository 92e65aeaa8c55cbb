"""The wall clock that all processes of a cluster see, to be set. Needs a C compiler on the machine; without one the
clock is the machine's own, and cannot be set."""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """`folder` must be open to every user that runs a process of the cluster."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        self._set_by = folder / "clock"
        self.settable = self._build()
        self.set(0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process must be started with to see this clock."""
        if not self.settable:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._set_by)}

    def set(self, seconds: int) -> None:
        """Ahead of the machine's clock by so much; below 0: behind it. In place: it is mapped into the processes."""
        mode = "r+b" if self._set_by.exists() else "wb"
        with self._set_by.open(mode) as file:
            file.write(struct.pack("=q", seconds))

    def _build(self) -> bool:
        compiler = shutil.which("cc")
        if compiler is None:
            return False
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True)
        return True
