"""What this machine has for a model: GPUs as the driver's own tool lists them, and main memory. Imports no CUDA."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = ("name", "memory.total", "memory.free", "compute_cap")
_FP8 = (8, 9)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """`total` and `free` in bytes."""

    name: str
    total: int
    free: int
    capability: tuple[int, int]

    @property
    def has_fp8(self) -> bool:
        return self.capability >= _FP8


def gpus() -> list[Gpu]:
    """Empty without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(listed)


def parse_gpus(listed: str) -> list[Gpu]:
    """The lines of `nvidia-smi`; those that it cannot fill in are left out."""
    found = []
    for line in listed.splitlines():
        try:
            name, total, free, capability = (each.strip() for each in line.rsplit(",", 3))
            major, minor = (int(part) for part in capability.split("."))
            found.append(Gpu(name, int(total) * _MIB, int(free) * _MIB, (major, minor)))
        except ValueError:
            continue
    return found


def available_ram(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that programs can still take without swapping."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0
