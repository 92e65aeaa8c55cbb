"""After the load: what the clients saw, what the database says, and what was left behind, held against each other.

Every finding is one sentence; an audit without findings is clean.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import redis

from jobs.queue import queue_name
from tests.chaos.client import TERMINAL, Seen
from tests.chaos.cluster import MODEL, Cluster
from tests.chaos.ledger import Ledger
from tests.chaos.receiver import Delivery
from tests.chaos.requests import Answer

BUSY = ("running", "waiting")
"""Of an engine's statistics: generations."""
MEMORY_SLACK = 0.10
MEMORY_GRAIN = 12 << 20
"""A process may also grow by this much: an allocator's arena or two."""


def audit(
    cluster: Cluster,
    ledger: Ledger,
    seen: Sequence[Seen],
    answers: Mapping[str, Answer],
    deliveries: Sequence[Delivery],
) -> list[str]:
    """All findings. Waits for what may take its time: the retention of streams and blobs."""
    return [
        *clients(seen, answers),
        *jobs(ledger, seen, answers),
        *webhooks(ledger, deliveries),
        *leftovers(cluster, ledger),
        *engines(cluster, ledger),
    ]


def clients(seen: Sequence[Seen], answers: Mapping[str, Answer]) -> list[str]:
    """Each client by itself."""
    findings: list[str] = []
    for one in seen:
        findings += one.complaints
        who = f"{one.operation} {one.request} {sorted(one.job_ids)}"
        ended = {state for state in one.states if state in TERMINAL}
        if len(ended) > 1:
            findings.append(f"{who}: saw more than one end: {sorted(ended)}")
        if ended - one.expected:
            findings.append(f"{who}: ended as {sorted(ended)}")
        if len(one.job_ids) > 1:
            findings.append(f"{who}: one operation made several jobs")
        whole = answers[one.request].text
        findings += [f"{who}: got {text!r:.200} instead of {whole!r:.200}" for text in one.texts if text != whole]
        findings += [
            f"{who}: {text!r:.200} is no beginning of {whole!r:.200}"
            for text in one.partial_texts
            if not whole.startswith(text)
        ]
    return findings


def jobs(ledger: Ledger, seen: Sequence[Seen], answers: Mapping[str, Answer]) -> list[str]:
    """Each row, and the rows against the clients."""
    rows = ledger.patiently("""
        SELECT id, state, error::text AS error, metadata ->> 'operation' AS operation, token_count, attempt,
               (SELECT count(*) FROM job_attempts a WHERE a.job_id = jobs.id) AS attempts,
               (SELECT count(*) FROM job_attempts a WHERE a.job_id = jobs.id AND ended_at IS NULL) AS open
        FROM jobs""")
    findings = []
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        if row["state"] not in TERMINAL:
            findings.append(f"{row['id']}: is {row['state']} after everything")
        if row["open"]:
            findings.append(f"{row['id']}: has an attempt that never ended")
        if row["attempts"] != row["attempt"]:
            findings.append(f"{row['id']}: counts {row['attempt']} attempts and has {row['attempts']}")
    for one in seen:
        for job_id in one.job_ids:
            row = by_id.get(job_id)
            if row is None:
                findings.append(f"{one.operation}: {job_id} was accepted and is gone")
                continue
            told = [state for state in one.states if state in TERMINAL]
            if told and row["state"] != told[-1]:
                findings.append(f"{one.operation}: {job_id} was told as {told[-1]} and is {row['state']}")
            if row["state"] not in one.expected:
                findings.append(f"{one.operation}: {job_id} is {row['state']}: {row['error']}")
    per_operation = Counter(row["operation"] for row in rows if row["operation"])
    findings += [f"{name}: {count} jobs of one operation" for name, count in per_operation.items() if count > 1]
    return findings


def webhooks(ledger: Ledger, deliveries: Sequence[Delivery]) -> list[str]:
    """Every job that asked for one was told, by one id, and none before it had ended."""
    wanted = {
        row["id"]: row["state"]
        for row in ledger.patiently("SELECT id, state FROM jobs WHERE webhook IS NOT NULL AND batch_id IS NULL")
    }
    got: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in list(deliveries):
        got[delivery.job_id].append(delivery)
    findings = []
    for job_id, state in wanted.items():
        if not any(delivery.accepted for delivery in got[job_id]):
            findings.append(f"{job_id}: its webhook never came ({len(got[job_id])} tries)")
        if len({delivery.webhook_id for delivery in got[job_id]}) > 1:
            findings.append(f"{job_id}: its webhook came under several ids")
        findings += [
            f"{job_id}: told as {d.event_type}, is {state}" for d in got[job_id] if d.event_type != f"job.{state}"
        ]
    for job_id, some in got.items():
        findings += [f"{job_id}: told while it was {d.state}" for d in some if d.state not in TERMINAL]
    return findings


def leftovers(cluster: Cluster, ledger: Ledger) -> list[str]:
    """Once retention has done its work: no blob without a job, no job without its blobs, no stream, no bell."""
    times = cluster.times
    wait_s = times.stream_ttl_s + times.blob_age_s + 4 * times.clean_s + 10
    findings = []
    for what, left in (
        ("event logs in Redis", lambda: _streams(cluster)),
        ("bells in the queue", lambda: _bells(cluster)),
        ("blobs that no job refers to", lambda: _orphans(cluster, ledger)),
        ("blobs that are missing", lambda: _missing(cluster, ledger)),
        ("workers that are gone", lambda: _ghosts(cluster, ledger)),
    ):
        if rest := _until_empty(left, wait_s):
            findings.append(f"left behind: {len(rest)} {what}: {sorted(rest)[:5]}")
    return findings


def engines(cluster: Cluster, ledger: Ledger) -> list[str]:
    """No engine generates for anybody, as their workers' heartbeats tell."""

    def busy() -> list[str]:
        rows = ledger.patiently(
            "SELECT id, stats FROM workers WHERE heartbeat_at > now() - make_interval(secs => %s)",
            cluster.settings.lease_s,
        )
        return [f"{row['id']} {key} {row['stats'][key]}" for row in rows for key in BUSY if row["stats"].get(key)]

    return [f"an engine still works: {line}" for line in _until_empty(busy, 15)]


def memory(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """Of the processes that lived through the whole load."""
    findings = []
    for name in before.keys() & after.keys():
        most = before[name] * (1 + MEMORY_SLACK) + MEMORY_GRAIN
        if after[name] > most:
            findings.append(f"{name} grew from {before[name] >> 20} to {after[name] >> 20} MiB")
    return findings


def _until_empty(left: Callable[[], Sequence[str]], within_s: float) -> Sequence[str]:
    end = time.monotonic() + within_s
    while (rest := left()) and time.monotonic() < end:
        time.sleep(0.5)
    return rest


def _streams(cluster: Cluster) -> list[str]:
    with redis.Redis.from_url(cluster.settings.redis_url) as client:
        return [key.decode() for key in client.scan_iter(f"{cluster.settings.redis_prefix}{{*", count=1000)]


def _bells(cluster: Cluster) -> list[str]:
    with redis.Redis.from_url(cluster.settings.redis_url) as client:
        return [str(bell) for bell in client.lrange(f"{cluster.settings.redis_prefix}{queue_name(MODEL)}", 0, -1)]


def _orphans(cluster: Cluster, ledger: Ledger) -> list[str]:
    return sorted(_stored(cluster) - _referred(ledger))


def _missing(cluster: Cluster, ledger: Ledger) -> list[str]:
    return sorted(_referred(ledger) - _stored(cluster))


def _stored(cluster: Cluster) -> set[str]:
    return {path.name for path in Path(cluster.settings.blob_url).rglob("*") if path.is_file()}


def _referred(ledger: Ledger) -> set[str]:
    rows = ledger.patiently("SELECT digest FROM job_blobs UNION SELECT digest FROM files")
    return {row["digest"] for row in rows}


def _ghosts(cluster: Cluster, ledger: Ledger) -> list[str]:
    alive = {str(process.popen.pid) for process in cluster.running.values()}
    rows = ledger.patiently(
        "SELECT id FROM workers WHERE heartbeat_at > now() - make_interval(secs => %s)", cluster.settings.lease_s
    )
    return [row["id"] for row in rows if row["id"].split(":")[1] not in alive]
