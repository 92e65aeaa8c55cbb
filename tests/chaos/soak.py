"""`python -m tests.chaos.soak`: many short jobs through one worker, with a fault now and then.

Prints memory and latency by tenths of the run, and ends with 1 when the audit finds something or either has grown.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles

import httpx2

from tests.chaos.cluster import MODEL, Cluster, Times, cluster
from tests.chaos.entry import Report, options, reported
from tests.chaos.faults import FAULTS
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import leftovers, retention_s
from tests.chaos.overload import PARTS
from tests.chaos.stage import Stage

CLIENTS = 32
TENTHS = 10
GROWTH = 1.10
SHOCKS = ("engine killed", "worker terminated", "API killed", "Redis connections cut", "PostgreSQL restarted")
"""Faults of a second or two: what is soaked is the time between them."""


@dataclass
class Soak:
    jobs: int
    faults: float
    done: int = 0
    latencies: list[float] = field(default_factory=list)
    memory: list[dict[str, int]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    """The faults, one after another."""

    def tenths(self) -> list[list[float]]:
        """Latencies of each tenth of the run."""
        return [self.latencies[k * self.jobs // TENTHS : (k + 1) * self.jobs // TENTHS] for k in range(TENTHS)]


async def run(it: Cluster, soak: Soak, seed: int) -> None:
    numbers = iter(range(soak.jobs))
    stage = Stage(it, Ledger(it.settings.database_url))
    async with asyncio.TaskGroup() as group:
        for k in range(CLIENTS):
            group.create_task(_client(it, soak, numbers, random.Random(f"{seed}-{k}")))
        group.create_task(_shocks(stage, soak, random.Random(seed)))
        group.create_task(_measure(it, soak))


async def _client(it: Cluster, soak: Soak, numbers: Iterator[int], dice: random.Random) -> None:
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(30, connect=3)) as client:
        for number in numbers:
            began = time.monotonic()
            await _one(client, it.urls[0], soak, f"soak-{number}", dice)
            soak.latencies.append(time.monotonic() - began)
            soak.done += 1


async def _one(client: httpx2.AsyncClient, url: str, soak: Soak, key: str, dice: random.Random) -> None:
    """One short answer, asked for until it comes."""
    tokens = dice.randrange(1, 9)
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"Say {dice.random()}"}], "max_tokens": tokens}
    while True:
        try:
            headers = {"idempotency-key": key}
            answer = await client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
        except httpx2.TransportError:
            await asyncio.sleep(0.2)
            continue
        if answer.status_code == 200:
            if answer.json()["usage"]["completion_tokens"] > tokens:
                soak.complaints.append(f"{key}: {answer.text[:200]}")
            return
        if answer.status_code not in (409, 429, 503):
            soak.complaints.append(f"{key}: {answer.status_code} {answer.text[:200]}")
            return
        await asyncio.sleep(0.2)


async def _shocks(stage: Stage, soak: Soak, dice: random.Random) -> None:
    """So often that this share of the jobs is under way when one strikes."""
    every = max(1, round(1 / soak.faults)) * CLIENTS
    while soak.done < soak.jobs:
        await asyncio.sleep(0.2)
        if soak.done >= (len(soak.struck) + 1) * every and soak.done < 0.95 * soak.jobs:
            soak.struck.append(dice.choice(SHOCKS))
            try:
                await asyncio.to_thread(FAULTS[soak.struck[-1]], stage, dice)
            except AssertionError as exc:
                soak.complaints.append(f"{soak.struck[-1]}: {exc}")


async def _measure(it: Cluster, soak: Soak) -> None:
    for tenth in range(1, TENTHS + 1):
        while soak.done < tenth * soak.jobs // TENTHS:
            await asyncio.sleep(0.2)
        soak.memory.append(it.memory())
        part = soak.latencies[(tenth - 1) * soak.jobs // TENTHS :]
        sizes = ", ".join(f"{name} {size >> 20}" for name, size in soak.memory[-1].items())
        print(f"{tenth * 10:3d} %: p50 {1000 * median(part):.0f} ms; MiB: {sizes}", flush=True)


def findings(soak: Soak, ledger: Ledger) -> list[str]:
    found = list(soak.complaints)
    third = len(soak.latencies) // 3
    early, late = median(soak.latencies[:third]), median(soak.latencies[-third:])
    if late > 1.5 * early:
        found.append(f"latency grew from {1000 * early:.0f} to {1000 * late:.0f} ms")
    for name, size in soak.memory[-1].items():
        level = soak.memory[TENTHS // 3].get(name, size)
        if size > GROWTH * level + (8 << 20):
            found.append(f"{name} grew from {level >> 20} to {size >> 20} MiB")
    rows = ledger.ask("SELECT state, count(*) AS n FROM jobs WHERE state NOT IN ('completed', 'incomplete') GROUP BY 1")
    return found + [f"{row['n']} jobs are {row['state']}" for row in rows]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--faults", type=float, default=0.02, help="share of the jobs that are under way at one")
    asked = parser.parse_args()
    soak = Soak(asked.jobs, asked.faults)
    report = Report("soak")
    with reported(report, asked) as folder, cluster(folder, Times(), device=asked.device) as it:
        it.parts = {name: it.parts[name] for name in PARTS}
        it.start_all()
        began = time.monotonic()
        asyncio.run(run(it, soak, asked.seed))
        took_s = time.monotonic() - began
        print(f"{soak.jobs} jobs in {took_s:.0f} s, {len(soak.struck)} faults", flush=True)
        ledger = Ledger(it.settings.database_url)
        left = leftovers(it.settings, ledger, it.alive(), retention_s(it.times))
        report.findings += [*findings(soak, ledger), *left]
        report.values |= {
            "jobs": soak.jobs,
            "jobs_per_s": soak.jobs / took_s,
            "faults": dict(Counter(soak.struck)),
            "p50_ms": [1000 * median(part) for part in soak.tenths()],
            "p99_ms": [1000 * quantiles(part, n=100)[98] for part in soak.tenths()],
            "memory_mib": [{name: size >> 20 for name, size in sizes.items()} for sizes in soak.memory],
        }
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
