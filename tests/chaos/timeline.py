"""What the history of all rows, and the attempts that each job lists, say of the promises about workers: one end, no
write by a worker that has lost the job, no attempt lost without a fault, every attempt told."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from tests.chaos.client import TERMINAL
from tests.chaos.history import Write
from tests.chaos.ledger import Ledger

Attempts = Mapping[str, Sequence[Mapping[str, Any]]]
"""Of each job, by number: number, worker, ended_as, tokens."""

_WORKER = (
    "worker killed",
    "worker frozen beyond its lease",
    "worker frozen beside its engine",
    "clock set back",
)
_ENGINE = ("engine killed", "engine aborted", "engine hangs", "poisonous job")
_POSTGRES = (
    "PostgreSQL restarted",
    "PostgreSQL killed",
    "PostgreSQL stands still",
    "PostgreSQL out of connections",
    "PostgreSQL table locked",
)
_NETWORK = ("network cut towards the services", "network cut from the services")
EXPLAINED: Mapping[str, tuple[str, ...]] = {
    "lease_expired": (*_WORKER, *_POSTGRES, *_NETWORK, "worker terminated"),
    "engine_died": (*_ENGINE, *_WORKER),
    "drained": ("worker terminated", *_POSTGRES, *_NETWORK),
    "media_unavailable": ("blob store full",),
    "worker_error": (),
}
"""Which faults may cost a job an attempt that ends so."""
ASKED_OF_THE_API = 40


def attempts_of(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in ledger.patiently(
        "SELECT job_id, number, worker, ended_as, detail, tokens FROM job_attempts ORDER BY job_id, number"
    ):
        found[row["job_id"]].append(row)
    return dict(found)


def ends(writes: Sequence[Write]) -> list[str]:
    """A job ends once, but for dead letters that are given back."""
    findings = []
    ended: dict[str, Write] = {}
    for write in writes:
        first = ended.get(write.job_id)
        if first is not None and write.before == "failed" and write.after == "queued":
            del ended[write.job_id]
        elif first is not None and write.after != write.before:
            findings.append(
                f"{write.job_id} ended more than once: {first.after} by {first.writer}, {write.after} by {write.writer}"
            )
        elif write.after in TERMINAL:
            ended[write.job_id] = write
    return findings


def fences(writes: Sequence[Write], pids: Mapping[str, int]) -> list[str]:
    """What a worker runs no other worker writes to. `pids`: of every start of every process."""
    names = {pid: name for name, pid in pids.items() if name.startswith("worker")}
    findings = []
    for write in writes:
        if write.before != "in_progress" or not write.writer.startswith("worker") or write.worker is None:
            continue
        owner = names.get(int(write.worker.split(":")[1]))
        if owner != write.writer:
            findings.append(
                f"{write.writer} wrote to {write.job_id}, which {owner} ran in attempt {write.attempt}: "
                f"{write.after} with {write.tokens} tokens"
            )
    return findings


def losses(writes: Sequence[Write], attempts: Attempts) -> list[str]:
    """Whoever loses an attempt has been struck."""
    findings = []
    for write in writes:
        if write.before != "in_progress" or write.after == "in_progress":
            continue
        closed = [each for each in attempts.get(write.job_id, ()) if each["number"] == write.attempt]
        for attempt in closed:
            explained = EXPLAINED.get(attempt["ended_as"])
            if explained is not None and not set(explained) & set(write.faults):
                findings.append(
                    f"{write.job_id}: attempt {write.attempt} was lost as {attempt['ended_as']} to no fault "
                    f"({' and '.join(write.faults) or 'nothing'} before): {attempt['detail']}"
                )
    return findings


def told(url: str, attempts: Attempts) -> list[str]:
    """Every attempt is numbered, has its worker, its reason and its tokens; the API tells the same."""
    findings = []
    for job_id, listed in attempts.items():
        if [each["number"] for each in listed] != list(range(1, len(listed) + 1)):
            findings.append(f"{job_id}: its attempts are numbered {[each['number'] for each in listed]}")
        findings += [
            f"{job_id}: attempt {each['number']} tells no worker or no reason"
            for each in listed
            if not each["worker"] or not each["ended_as"]
        ]
        tokens = [each["tokens"] for each in listed]
        if tokens != sorted(tokens):
            findings.append(f"{job_id}: an attempt had fewer tokens than the one before: {tokens}")
    several = [job_id for job_id, listed in attempts.items() if len(listed) > 1 and job_id.startswith("job_")]
    for job_id in several[:ASKED_OF_THE_API]:
        shown = httpx2.get(f"{url}/v1/jobs/{job_id}", timeout=30).json()["attempts"]
        seen = [(each["number"], each["worker"], each["end"], each["tokens"]) for each in shown]
        if seen != [(e["number"], e["worker"], e["ended_as"], e["tokens"]) for e in attempts[job_id]]:
            findings.append(f"{job_id}: the API tells other attempts than the rows: {seen}")
    return findings


def continued(attempts: Attempts) -> dict[str, int]:
    """Jobs that went on from the tokens of a lost attempt, with how many those were."""
    found = {}
    for job_id, listed in attempts.items():
        before = max((each["tokens"] for each in listed[:-1]), default=0)
        if before and listed[-1]["tokens"] > before:
            found[job_id] = before
    return found
