"""`python -m tests.chaos.overload`: ten times as many jobs as the installation can do, for minutes, then the drain.

Open loop: a request goes out when its time has come, whether the earlier ones are answered or not. Answers are of
different lengths: of one length, an engine's jobs begin and end together, and any count per second is a matter of where
it starts. Every speed is counted from the instants at which the database says that jobs ended. Ends with 1 when
something was lost, refused otherwise than by 429, unbounded, or slower once nothing is offered any more.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

import httpx2

from tests.chaos.cluster import MODEL, Cluster, Times, cluster
from tests.chaos.entry import Report, options, reported
from tests.chaos.ledger import Ledger

MAX_QUEUED = 400
SLACK = 80
"""How far the queue may pass its limit: the API looks at it at most once a second."""
P99_MS = 250
SPEED_KEPT = 0.9
COMPANY = 48
"""Jobs at once while the capacity is measured: more than an engine's slots."""
WARM_S = 5.0
MEASURED_S = 30.0
GOLDEN = 0.618034
BODY: Mapping[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell a story."}],
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


async def offer(url: str, body: Mapping[str, Any], rate: float, duration_s: float, ledger: Ledger) -> Offered:
    """`rate` requests per second, evenly spaced."""
    offered = Offered()
    limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
    async with httpx2.AsyncClient(timeout=60, limits=limits) as client, asyncio.TaskGroup() as group:
        began = time.monotonic()
        group.create_task(_watch(ledger, offered, began + duration_s))
        for k in range(int(rate * duration_s)):
            await asyncio.sleep(max(0.0, began + k / rate - time.monotonic()))
            group.create_task(_submit(client, url, lengthened(body, k), offered))
    return offered


async def _submit(client: httpx2.AsyncClient, url: str, body: Mapping[str, Any], offered: Offered) -> None:
    began = time.monotonic()
    answer = await client.post(f"{url}/v1/jobs", json=body)
    offered.latencies.append(time.monotonic() - began)
    offered.statuses[answer.status_code] += 1
    if answer.status_code == 201:
        offered.accepted.append(answer.json()["id"])


async def _watch(ledger: Ledger, offered: Offered, until: float) -> None:
    while time.monotonic() < until:
        (row,) = await asyncio.to_thread(ledger.ask, "SELECT count(*) AS n FROM jobs WHERE state = 'queued'")
        offered.longest_queue = max(offered.longest_queue, row["n"])
        await asyncio.sleep(1)


async def capacity(url: str, body: Mapping[str, Any], ledger: Ledger) -> float:
    """Jobs per second of the installation when there is always enough to do and no more: of at least two full
    engines' jobs, however long they take."""
    first, order, done = now(ledger) + timedelta(seconds=WARM_S), itertools.count(), 0
    end = time.monotonic() + WARM_S + MEASURED_S

    async def one_after_another(client: httpx2.AsyncClient) -> None:
        nonlocal done
        while time.monotonic() < end or done < 2 * COMPANY:
            answer = await client.post(f"{url}/v1/chat/completions", json=lengthened(body, next(order)))
            assert answer.status_code == 200, answer.text
            done += 1

    async with httpx2.AsyncClient(timeout=300) as client, asyncio.TaskGroup() as group:
        for _ in range(COMPANY):
            group.create_task(one_after_another(client))
    # From here on fewer and fewer run.
    (row,) = ledger.ask("SELECT max(queued_at) AS last FROM jobs")
    return speed(ledger, first, row["last"])


def lengthened(body: Mapping[str, Any], k: int) -> Mapping[str, Any]:
    """With half to one and a half times as many tokens, evenly spread over any stretch of requests."""
    return {**body, "max_tokens": round(body["max_tokens"] * (0.5 + k * GOLDEN % 1))}


def drain(ledger: Ledger, within_s: float) -> None:
    """Until no job is left, or the time is over."""
    end = time.monotonic() + within_s
    while time.monotonic() < end and ledger.ask("SELECT 1 FROM jobs WHERE done_at IS NULL LIMIT 1"):
        time.sleep(1)


def now(ledger: Ledger) -> datetime:
    """By the clock that the jobs' instants are of."""
    moment: datetime = ledger.ask("SELECT now() AS moment")[0]["moment"]
    return moment


def last_claim(ledger: Ledger) -> datetime:
    """Until then a job waited for every place that became free."""
    moment: datetime = ledger.ask("SELECT max(claimed_at) AS moment FROM jobs")[0]["moment"]
    return moment


def speed(ledger: Ledger, since: datetime, until: datetime) -> float:
    """Jobs per second that ended in this time."""
    question = "SELECT count(*) AS n FROM jobs WHERE done_at >= %s AND done_at < %s"
    (row,) = ledger.ask(question, since, until)
    return float(row["n"] / (until - since).total_seconds())


def lost(ledger: Ledger, accepted: list[str]) -> Mapping[str, int]:
    """Accepted jobs that are not done, by state; those that are gone as `absent`."""
    rows = {row["id"]: row["state"] for row in ledger.ask("SELECT id, state FROM jobs")}
    found = Counter(rows.get(job_id, "absent") for job_id in accepted)
    return {state: count for state, count in found.items() if state not in ("incomplete", "completed")}


def findings(offered: Offered, able: float, drained: float, missing: Mapping[str, int]) -> list[str]:
    found = [f"{count} accepted jobs are {state}" for state, count in missing.items()]
    others = {status: count for status, count in offered.statuses.items() if status not in (201, 429)}
    if others:
        found.append(f"answered otherwise than by 201 and 429: {others}")
    if offered.longest_queue > MAX_QUEUED + SLACK:
        found.append(f"{offered.longest_queue} jobs waited where {MAX_QUEUED} may")
    if (p99 := offered.percentile_ms(99)) > P99_MS:
        found.append(f"99 of 100 answers took up to {p99:.0f} ms, more than {P99_MS} ms")
    if drained < SPEED_KEPT * able:
        found.append(f"the backlog drained at {drained:.1f} jobs/s where {able:.1f} are possible")
    return found


async def run(it: Cluster, asked: argparse.Namespace, report: Report) -> None:
    ledger, url = Ledger(it.settings.database_url), it.urls[0]
    body = {**BODY, "max_tokens": asked.tokens}
    able = await capacity(url, body, ledger)
    print(f"capacity: {able:.1f} jobs/s of {asked.tokens} tokens", flush=True)
    began = now(ledger)
    offered = await offer(url, body, asked.times * able, asked.seconds, ledger)
    ended = now(ledger)
    await asyncio.to_thread(drain, ledger, 60 + 3 * MAX_QUEUED / able)
    loaded = speed(ledger, began + timedelta(seconds=WARM_S), ended)
    drained = speed(ledger, ended, last_claim(ledger))
    missing = lost(ledger, offered.accepted)
    p50, p99 = offered.percentile_ms(50), offered.percentile_ms(99)
    print(f"offered {asked.times:g} times that for {asked.seconds:.0f} s: {dict(offered.statuses)}")
    print(f"answered in p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    print(f"longest queue {offered.longest_queue} (limit {MAX_QUEUED})")
    print(f"done meanwhile: {loaded:.1f} jobs/s; of the backlog then: {drained:.1f} jobs/s")
    print(f"accepted {len(offered.accepted)}, lost: {dict(missing) or 'none'}", flush=True)
    report.findings += findings(offered, able, drained, missing)
    report.values |= {
        "capacity_per_s": able,
        "tokens": asked.tokens,
        "times": asked.times,
        "seconds": asked.seconds,
        "statuses": {str(status): count for status, count in offered.statuses.items()},
        "p50_ms": p50,
        "p99_ms": p99,
        "longest_queue": offered.longest_queue,
        "max_queued": MAX_QUEUED,
        "overloaded_per_s": loaded,
        "drained_per_s": drained,
        "lost": sum(missing.values()),
    }


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--times", type=float, default=10.0, help="of what the installation can do")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer: more make the installation slower")
    asked = parser.parse_args()
    report = Report("overload")
    with reported(report, asked) as folder, cluster(folder, Times(), device=asked.device) as it:
        it.parts = {name: it.parts[name] for name in PARTS}
        api = it.parts["api-a"]
        limit = {"VLMQ_API_MAX_QUEUED": str(MAX_QUEUED)}
        it.parts["api-a"] = replace(api, environment={**api.environment, **limit})
        it.start_all()
        asyncio.run(run(it, asked, report))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
