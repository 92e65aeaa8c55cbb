"""`python -m bench.shares`: what tenants get of a worker that all of them keep busy, beside what their weights say.

Real processes, the tiny model, three tenants whose jobs are nothing like what they are estimated to cost. Prints a line
for each minute and a table; ends with 1 when a share of tokens is further from its weight than `--within`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.running import running_system
from bench.saturation import Had, Saturation, Tenant
from tests.fixtures.eventually import eventually
from tools.tiny_model import write_checkpoint

TENANTS = (
    Tenant("acme", 1.0, words=120, picture=None, answer_tokens=16),
    Tenant("bolt", 2.0, words=1, picture=(600, 300), answer_tokens=48),
    Tenant("cord", 4.0, words=4, picture=None, answer_tokens=500),
)
WITHIN = 0.1


@dataclass(frozen=True, slots=True)
class Share:
    """Of the tokens that all tenants had together; `due` is what its weight says."""

    tokens: int
    share: float
    due: float

    @property
    def deviation(self) -> float:
        return self.share / self.due - 1


def shares(tenants: Sequence[Tenant], tokens: Mapping[str, int]) -> dict[str, Share]:
    total, weights = max(1, sum(tokens.values())), sum(tenant.weight for tenant in tenants)
    return {
        tenant.name: Share(tokens[tenant.name], tokens[tenant.name] / total, tenant.weight / weights)
        for tenant in tenants
    }


def minute_line(minute: float, so_far: Mapping[str, Share], alone: Mapping[str, Share]) -> str:
    told = [
        f"{name} {100 * share.deviation:+6.1f} % ({100 * alone[name].deviation:+6.1f} %)"
        for name, share in so_far.items()
    ]
    return f"{minute:6.2f} min   " + "   ".join(told)


def table(tenants: Sequence[Tenant], had: Mapping[str, Had], found: Mapping[str, Share]) -> str:
    head = f"{'tenant':<10}{'weight':>8}{'jobs':>8}{'tokens':>10}{'share':>9}{'due':>9}{'deviation':>12}"
    rows = [
        f"{tenant.name:<10}{tenant.weight:>8g}{had[tenant.name].jobs:>8}{share.tokens:>10}"
        f"{100 * share.share:>7.1f} %{100 * share.due:>7.1f} %{100 * share.deviation:>+10.1f} %"
        for tenant, share in zip(tenants, found.values(), strict=True)
    ]
    return "\n".join((head, *rows))


def measure(saturation: Saturation, minutes: float) -> tuple[Mapping[str, Had], Mapping[str, Share]]:
    """Prints a line a minute, and once more at the end."""
    begun, before = time.monotonic(), saturation.had()
    print("deviation from the weight since the beginning (in the last minute)")
    at = 0.0
    while at < minutes:
        at = min(at + 1, minutes)
        time.sleep(max(0.0, begun + 60 * at - time.monotonic()))
        had = saturation.had()
        so_far = shares(TENANTS, {name: each.tokens for name, each in had.items()})
        alone = shares(TENANTS, {name: each.tokens - before[name].tokens for name, each in had.items()})
        print(minute_line(at, so_far, alone), flush=True)
        before = had
    return had, so_far


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.shares", description="Shares of tokens beside weights.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--within", type=float, default=WITHIN, help="of a weight's share (0.1)")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes = {options.minutes:g}: must be more than 0")
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as folder:
        checkpoint = write_checkpoint(Path(folder) / "model")
        with running_system(checkpoint, Path(folder)) as system, Saturation(system, TENANTS) as saturation:
            eventually("everybody's jobs wait", saturation.full)
            system.start_worker()
            had, found = measure(saturation, options.minutes)
            least = dict(saturation.least_waiting)
    print("\n" + table(TENANTS, had, found))
    print(f"the fewest that waited: {least}")
    return int(max(abs(share.deviation) for share in found.values()) > options.within)


if __name__ == "__main__":
    sys.exit(main())
