"""`python -m tests.chaos.overload`: ten times as many jobs as the installation can do, for minutes, then the drain.

Open loop: a request goes out when its time has come, whether the earlier ones are answered or not. Prints a table, and
ends with 1 when something was lost, refused otherwise than by 429, or unbounded.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx2

from tests.chaos.cluster import MODEL, Cluster, Times, cluster
from tests.chaos.ledger import Ledger

TOKENS = 128
MAX_QUEUED = 400
WARM_S = 20.0
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell a story."}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "temperature": 0,
}
PARTS = ("api-a", "worker-a", "maintenance-a")


@dataclass
class Offered:
    """What came of the requests of one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    longest_queue: int = 0

    def percentile_ms(self, percent: int) -> float:
        return 1000 * quantiles(self.latencies, n=100)[percent - 1]


async def offer(url: str, rate: float, duration_s: float, ledger: Ledger) -> Offered:
    """`rate` requests per second, evenly spaced."""
    offered = Offered()
    limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client, asyncio.TaskGroup() as group:
        began = time.monotonic()
        group.create_task(_watch(ledger, offered, began + duration_s))
        for k in range(int(rate * duration_s)):
            await asyncio.sleep(max(0.0, began + k / rate - time.monotonic()))
            group.create_task(_submit(client, url, offered))
    return offered


async def _submit(client: httpx2.AsyncClient, url: str, offered: Offered) -> None:
    began = time.monotonic()
    answer = await client.post(f"{url}/v1/jobs", json=BODY)
    offered.latencies.append(time.monotonic() - began)
    offered.statuses[answer.status_code] += 1
    if answer.status_code == 201:
        offered.accepted.append(answer.json()["id"])


async def _watch(ledger: Ledger, offered: Offered, until: float) -> None:
    while time.monotonic() < until:
        (row,) = await asyncio.to_thread(ledger.ask, "SELECT count(*) AS n FROM jobs WHERE state = 'queued'")
        offered.longest_queue = max(offered.longest_queue, row["n"])
        await asyncio.sleep(1)


def capacity(it: Cluster, ledger: Ledger) -> float:
    """Jobs per second of the installation when there is always enough to do and nobody asks for anything."""
    for _ in range(200):
        assert httpx2.post(f"{it.urls[0]}/v1/jobs", json=BODY, timeout=30).status_code == 201
    time.sleep(2)
    return _done_per_s(ledger, WARM_S)


def _done_per_s(ledger: Ledger, seconds: float) -> float:
    began, before = time.monotonic(), _done(ledger)
    while time.monotonic() < began + seconds and _waiting(ledger):
        time.sleep(0.5)
    return (_done(ledger) - before) / (time.monotonic() - began)


def _done(ledger: Ledger) -> int:
    return int(ledger.ask("SELECT count(*) AS n FROM jobs WHERE done_at IS NOT NULL")[0]["n"])


def _waiting(ledger: Ledger) -> int:
    return int(ledger.ask("SELECT count(*) AS n FROM jobs WHERE state = 'queued'")[0]["n"])


def drain(ledger: Ledger, within_s: float) -> float:
    """Jobs per second while what waits is done."""
    speed = _done_per_s(ledger, within_s)
    end = time.monotonic() + 60
    while ledger.ask("SELECT 1 FROM jobs WHERE done_at IS NULL LIMIT 1") and time.monotonic() < end:
        time.sleep(0.5)
    return speed


def lost(ledger: Ledger, accepted: list[str]) -> Mapping[str, int]:
    """Accepted jobs that are not done, by state; those that are gone as `absent`."""
    rows = {row["id"]: row["state"] for row in ledger.ask("SELECT id, state FROM jobs")}
    found = Counter(rows.get(job_id, "absent") for job_id in accepted)
    return {state: count for state, count in found.items() if state not in ("incomplete", "completed")}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=300.0)
    options.add_argument("--times", type=float, default=10.0, help="of what the installation can do")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="vlmq-overload-") as folder, cluster(Path(folder), Times()) as it:
        ledger = Ledger(it.settings.database_url)
        it.parts = {name: it.parts[name] for name in PARTS}
        it.parts["api-a"].environment["VLMQ_API_MAX_QUEUED"] = str(MAX_QUEUED)  # type: ignore[index]
        it.start_all()
        able = capacity(it, ledger)
        print(f"capacity: {able:.1f} jobs/s of {TOKENS} tokens")
        offered = asyncio.run(offer(it.urls[0], asked.times * able, asked.seconds, ledger))
        speed = drain(ledger, 2 * MAX_QUEUED / able)
        missing = lost(ledger, offered.accepted)
        print(f"offered {asked.times:g} times that for {asked.seconds:.0f} s: {dict(offered.statuses)}")
        print(f"answered in p50 {offered.percentile_ms(50):.0f} ms, p99 {offered.percentile_ms(99):.0f} ms")
        print(f"longest queue {offered.longest_queue} (limit {MAX_QUEUED}); drained at {speed:.1f} jobs/s")
        print(f"accepted {len(offered.accepted)}, lost: {dict(missing) or 'none'}")
    others = set(offered.statuses) - {201, 429}
    return 1 if missing or others or offered.longest_queue > 1.2 * MAX_QUEUED else 0


if __name__ == "__main__":
    sys.exit(main())
