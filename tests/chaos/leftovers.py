"""What may be left when everything has ended and retention has done its work: nothing. No blob without a job, no job
without its blobs, no log, bell or delivery on its way, no worker that is gone, no engine at work, no memory kept."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from jobs.settings import ServiceSettings
from tests.chaos.cluster import Times
from tests.chaos.ledger import Ledger

BUSY = ("running", "waiting")
"""Of an engine's statistics: generations."""
MEMORY_SLACK = 0.10
MEMORY_GRAIN = 12 << 20
"""A process may also grow by this much: an allocator's arena or two."""


def leftovers(settings: ServiceSettings, ledger: Ledger, alive: Collection[int], wait_s: float) -> list[str]:
    """`alive` are the process ids of workers that run; `wait_s` is for what may take its time."""
    findings = []
    for what, left in (
        ("event logs in Redis", lambda: _logs(settings)),
        ("queues with messages in Redis", lambda: _keys(settings, "*", "list")),
        (
            "messages that were never acknowledged",
            lambda: _keys(settings, "unacked") + _keys(settings, "unacked_index"),
        ),
        ("webhooks on their way", lambda: _on_their_way(ledger)),
        ("blobs that no job refers to", lambda: sorted(_stored(settings) - _referred(ledger))),
        ("blobs that are missing", lambda: sorted(_referred(ledger) - _stored(settings))),
        ("workers that are gone", lambda: _ghosts(settings, ledger, alive)),
        ("generations in an engine", lambda: _generations(settings, ledger)),
    ):
        if rest := _until_empty(left, wait_s):
            findings.append(f"left behind: {len(rest)} {what}: {sorted(rest)[:5]}")
    return findings


def retention_s(times: Times) -> float:
    """How long it may take until nothing is left."""
    return times.stream_ttl_s + times.blob_age_s + 4 * times.clean_s + 10


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


def _keys(settings: ServiceSettings, pattern: str, kind: str | None = None) -> list[str]:
    with redis.Redis.from_url(settings.redis_url) as client:
        found = client.scan_iter(f"{settings.redis_prefix}{pattern}", count=1000, _type=kind)
        return [key.decode() for key in found]


def _logs(settings: ServiceSettings) -> list[str]:
    """Without the word that a log was erased, which stays for a minute by design: jobs that become old enough to be
    purged while the audit waits go on leaving some."""
    left = _keys(settings, "{*")
    fences = [key for key in left if key.endswith(":attempt")]
    with redis.Redis.from_url(settings.redis_url) as client:
        held: Any = client.mget(fences) if fences else []
    gone = {fence for fence, holder in zip(fences, held, strict=True) if holder in (None, b"erased")}
    return [key for key in left if key not in gone]


def _on_their_way(ledger: Ledger) -> list[str]:
    rows = ledger.patiently(
        "SELECT id, state FROM webhook_deliveries WHERE state = 'pending' OR leased_until IS NOT NULL"
    )
    return [f"{row['id']} {row['state']}" for row in rows]


def _stored(settings: ServiceSettings) -> set[str]:
    return {path.name for path in Path(settings.blob_url).rglob("*") if path.is_file()}


def _referred(ledger: Ledger) -> set[str]:
    rows = ledger.patiently("SELECT digest FROM job_blobs UNION SELECT digest FROM files")
    return {row["digest"] for row in rows}


def _ghosts(settings: ServiceSettings, ledger: Ledger, alive: Collection[int]) -> list[str]:
    return [row["id"] for row in _living(settings, ledger) if row["pid"] not in alive]


def _generations(settings: ServiceSettings, ledger: Ledger) -> list[str]:
    """As the workers' heartbeats tell them."""
    rows = _living(settings, ledger)
    return [f"{row['id']} {key} {row['stats'][key]}" for row in rows for key in BUSY if row["stats"].get(key)]


def _living(settings: ServiceSettings, ledger: Ledger) -> list[dict[str, Any]]:
    question = "SELECT id, pid, stats FROM workers WHERE heartbeat_at > now() - make_interval(secs => %s)"
    return ledger.patiently(question, settings.lease_s)
