"""A small file system of its own for one run's blobs, so that it can be filled. A plain folder where the machine does
not allow mounting one."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

MIB = 64


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Empty when `folder` is a disk of its own meanwhile; otherwise why not."""
    folder.mkdir(parents=True)
    reason = _mount(folder)
    try:
        yield reason
    finally:
        if not reason:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def _mount(folder: Path) -> str:
    for tool in ("mount", "umount"):
        if shutil.which(tool) is None:
            return f"the blob store has no disk of its own: there is no `{tool}` here"
    command = ["mount", "-t", "tmpfs", "-o", f"size={MIB}m", "vlmq-chaos", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"the blob store has no disk of its own: {made.stderr.strip()}" if made.returncode else ""
