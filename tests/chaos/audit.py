"""After the load: what the clients saw, what the database says, and what was left behind, held against each other.

Every finding is one sentence; an audit without findings is clean.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.client import TERMINAL, Seen
from tests.chaos.cluster import Cluster
from tests.chaos.history import Write
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import leftovers, retention_s
from tests.chaos.receiver import Delivery
from tests.chaos.requests import Answer
from tests.chaos.timeline import Attempts, ends, fences, losses, told


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run leaves to be audited."""

    seen: Sequence[Seen]
    answers: Mapping[str, Answer]
    """Of each request, while nothing happened."""
    deliveries: Sequence[Delivery]
    writes: Sequence[Write]
    attempts: Attempts


def audit(cluster: Cluster, ledger: Ledger, evidence: Evidence) -> list[str]:
    """All findings. Waits for what may take its time: the retention of streams and blobs."""
    return [
        *clients(evidence.seen, evidence.answers),
        *jobs(ledger, evidence.seen),
        *webhooks(ledger, evidence.deliveries),
        *ends(evidence.writes),
        *fences(evidence.writes, cluster.pids),
        *losses(evidence.writes, evidence.attempts),
        *told(cluster.urls[0], evidence.attempts),
        *leftovers(cluster.settings, ledger, cluster.alive(), retention_s(cluster.times)),
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


def jobs(ledger: Ledger, seen: Sequence[Seen]) -> list[str]:
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
