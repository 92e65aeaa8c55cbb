"""`python -m tests.chaos.mutants`: what the harness is worth. One promise at a time is taken out of a copy of the code,
and a run over the copy must find that it is missing.

A mutant is one piece of source text replaced by another; it must be there exactly once, so that a mutant that no longer
fits is noticed.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.cluster import ROOT
from tests.chaos.entry import Report, options, reported
from tests.chaos.run import Plan, run

PACKAGES = ("api", "cli", "jobs", "migrations", "worker", "conf")
LONG = ("request-10", "request-11")
"""Long enough that a worker holds some whenever it is struck."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`faults` and `kinds`: what brings the missing promise to light; `named_by`: what a finding must say of it."""

    name: str
    file: str
    source: str
    mutated: str
    faults: tuple[str, ...]
    kinds: tuple[str, ...]
    named_by: str
    times: int = 1
    requests: tuple[str, ...] = ()


MUTANTS = (
    Mutant(
        "no fencing of a worker's writes",
        "jobs/store/ending.py",
        "WHERE id = :id AND attempt = :attempt AND state = 'in_progress' FOR UPDATE",
        "WHERE id = :id AND CAST(:attempt AS int) > 0 FOR UPDATE",
        ("worker frozen beside its engine",),
        ("follow", "poll", "background"),
        "wrote to",
        3,
        LONG,
    ),
    Mutant(
        "no heartbeat",
        "worker/heartbeat.py",
        "self._store.heartbeat(",
        "len(self._store.workers(1.0)) or self._store.heartbeat(",
        ("API frozen", "API frozen"),
        ("follow", "poll"),
        "was lost",
    ),
    Mutant(
        "no outbox",
        "jobs/store/ending.py",
        "), {_CLOSED}, {TELL_JOB}, ",
        "), {_CLOSED}, ",
        ("deliverer killed",),
        ("webhook",),
        "its webhook never came",
    ),
    Mutant(
        "no bell rung again",
        "worker/maintenance.py",
        "        self._sweeper.ring()\n",
        "",
        ("Redis restarted empty",),
        ("follow", "poll"),
        "is queued after everything",
        3,
    ),
    Mutant(
        "no idempotency constraint",
        "jobs/idempotency.py",
        "if connection.execute(_CLAIM, values).one_or_none() is None:\n",
        "if connection.execute(_CLAIM, values).one_or_none() is None and not key:\n",
        ("API frozen",),
        ("twice",),
        "idempotency key made the jobs",
    ),
)


def mutated(mutant: Mutant) -> str:
    """Its file's text with the mutant in it. Raises ValueError when what it replaces is not there once."""
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.source) != 1:
        raise ValueError(f"{mutant.name}: {mutant.source!r} stands {text.count(mutant.source)} times in {mutant.file}")
    return text.replace(mutant.source, mutant.mutated)


def plant(mutant: Mutant, folder: Path) -> Path:
    """A copy of the source with the mutant in it. Raises ValueError."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "var").symlink_to(ROOT / "var")
    (folder / mutant.file).write_text(mutated(mutant))
    return folder


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--only", default="", help="part of a mutant's name")
    asked = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if asked.only in mutant.name]
    if not chosen:
        parser.error(f"--only {asked.only!r}: no such mutant; there are: {', '.join(m.name for m in MUTANTS)}")
    report = Report("mutants")
    with reported(report, asked) as folder:
        for mutant in chosen:
            found = hunt(mutant, asked.seed, folder, asked.device)
            report.values.setdefault("mutants", {})[mutant.name] = found
            print(f"{mutant.name} -> {len(found)} findings: {found[0][:300] if found else 'NOTHING'}", flush=True)
            if not any(mutant.named_by in finding for finding in found):
                report.findings.append(f"{mutant.name}: no finding says {mutant.named_by!r}")
    return 1 if report.findings else 0


def hunt(mutant: Mutant, seed: int, folder: Path, device: str) -> list[str]:
    """What the harness finds wrong with it; what names the cause first."""
    logs = folder / mutant.name.replace(" ", "-")
    logs.mkdir()
    with tempfile.TemporaryDirectory(prefix="vlmq-mutant-") as root:
        tree = plant(mutant, Path(root))
        tree.chmod(0o755)
        plan = Plan(
            seed,
            faults=mutant.times * len(mutant.faults),
            clients=6,
            lease_s=4.0,
            only=mutant.faults,
            kinds=mutant.kinds,
            requests=mutant.requests,
            root=tree,
            peace_s=40.0,
            device=device,
        )
        with (logs / "run.log").open("w") as log:
            findings = run(plan, logs, lambda line: print(line, file=log, flush=True)).findings
    return sorted(findings, key=lambda finding: mutant.named_by not in finding)


if __name__ == "__main__":
    sys.exit(main())
