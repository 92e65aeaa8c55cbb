"""`python -m bench.shares`: what tenants get of a worker that all of them keep busy, beside what their weights say.

Real processes, the tiny model, three tenants whose jobs differ in kind, in size, and in how far estimates are off.
Prints a line for each minute and a table; ends with 1 when a share of tokens is further off its weight than `--within`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.running import running_system
from bench.saturation import Had, Saturation, Share, Tenant, shares
from tests.fixtures.eventually import eventually
from tools.tiny_model import write_checkpoint

TENANTS = (
    Tenant("acme", 1.0, words=120, picture=None, answer_tokens=16),
    Tenant("bolt", 2.0, words=1, picture=(600, 300), answer_tokens=48),
    Tenant("cord", 4.0, words=4, picture=None, answer_tokens=500),
)
WITHIN = 0.1


def minute_line(minute: float, so_far: Mapping[str, Share], alone: Mapping[str, Share]) -> str:
    told = [f"{name} {_percent(share)} ({_percent(alone[name])})" for name, share in so_far.items()]
    return f"{minute:6.2f} min   " + "   ".join(told)


def _percent(share: Share) -> str:
    return f"{100 * share.deviation:+6.1f} %"


def table(tenants: Sequence[Tenant], had: Mapping[str, Had], found: Mapping[str, Share]) -> str:
    head = f"{'tenant':<10}{'weight':>8}{'jobs':>8}{'tokens':>10}{'share':>9}{'due':>9}{'deviation':>12}"
    rows = [
        f"{tenant.name:<10}{tenant.weight:>8g}{had[tenant.name].jobs:>8}{had[tenant.name].tokens:>10}"
        f"{100 * share.share:>7.1f} %{100 * share.due:>7.1f} %{_percent(share):>12}"
        for tenant, share in zip(tenants, found.values(), strict=True)
    ]
    return "\n".join((head, *rows))


def measure(saturation: Saturation, minutes: float) -> Mapping[str, Had]:
    """Prints a line a minute, and one at the end. What everybody has had from the beginning to then."""
    first = before = saturation.had()
    so_far: dict[str, Had] = {}
    print("deviation from the weight since the beginning (in the last minute)")
    begun, at = time.monotonic(), 0.0
    while at < minutes:
        at = min(at + 1, minutes)
        time.sleep(max(0.0, begun + 60 * at - time.monotonic()))
        now = saturation.had()
        so_far = {name: had.since(first[name]) for name, had in now.items()}
        alone = {name: had.since(before[name]) for name, had in now.items()}
        print(minute_line(at, shares(TENANTS, so_far), shares(TENANTS, alone)), flush=True)
        before = now
    return so_far


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.shares", description="Shares of tokens beside weights.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--within", type=float, default=WITHIN, help="of a weight's share (0.1)")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes = {options.minutes:g}: must be more than 0")
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as folder:
        checkpoint = write_checkpoint(Path(folder) / "model")
        with running_system(checkpoint, Path(folder)) as system:
            system.start_worker()
            with Saturation(system, TENANTS) as saturation:
                eventually("everybody's jobs wait", saturation.full)
                had = measure(saturation, options.minutes)
                least = dict(saturation.least_waiting)
    found = shares(TENANTS, had)
    print("\n" + table(TENANTS, had, found))
    print(f"the fewest that waited: {least}")
    return int(max(abs(share.deviation) for share in found.values()) > options.within)


if __name__ == "__main__":
    sys.exit(main())
