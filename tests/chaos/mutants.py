"""`python -m tests.chaos.mutants`: what the harness is worth. One promise at a time is taken out of a copy of the code,
and a run over the copy must find that it is missing.

A mutant is one piece of source text replaced by another; it must be there exactly once, so that a mutant that no longer
fits is noticed.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.cluster import ROOT
from tests.chaos.run import Plan, run

PACKAGES = ("api", "cli", "jobs", "migrations", "worker", "conf")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`faults` and `kinds`: what brings the missing promise to light."""

    name: str
    file: str
    source: str
    mutated: str
    faults: tuple[str, ...]
    kinds: tuple[str, ...]
    times: int = 1


MUTANTS = (
    Mutant(
        "no fencing of a worker's writes",
        "jobs/store/ending.py",
        "WHERE id = :id AND attempt = :attempt AND state = 'in_progress' FOR UPDATE",
        "WHERE id = :id AND CAST(:attempt AS int) > 0 FOR UPDATE",
        ("worker frozen beyond its lease",),
        ("follow", "poll"),
        2,
    ),
    Mutant(
        "no heartbeat",
        "worker/heartbeat.py",
        "self._store.heartbeat(",
        "len(self._store.workers(1.0)) or self._store.heartbeat(",
        ("API frozen", "API frozen"),
        ("follow", "poll"),
    ),
    Mutant(
        "no outbox",
        "jobs/store/ending.py",
        "), {_CLOSED}, {TELL_JOB}, ",
        "), {_CLOSED}, ",
        ("deliverer killed",),
        ("webhook",),
    ),
    Mutant(
        "no bell rung again",
        "worker/maintenance.py",
        "        self._sweeper.ring()\n",
        "",
        ("Redis restarted empty",),
        ("follow", "poll"),
        3,
    ),
    Mutant(
        "no idempotency constraint",
        "jobs/idempotency.py",
        "if connection.execute(_CLAIM, values).one_or_none() is None:\n",
        "if connection.execute(_CLAIM, values).one_or_none() is None and not key:\n",
        ("API frozen",),
        ("twice",),
    ),
)


def plant(mutant: Mutant, folder: Path) -> Path:
    """A copy of the source with the mutant in it. Raises ValueError when its text is not there once."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "var").symlink_to(ROOT / "var")
    file = folder / mutant.file
    text = file.read_text()
    if text.count(mutant.source) != 1:
        raise ValueError(f"{mutant.name}: {mutant.source!r} stands {text.count(mutant.source)} times in {mutant.file}")
    file.write_text(text.replace(mutant.source, mutant.mutated))
    return folder


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", help="part of a mutant's name")
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    survived = []
    for mutant in (m for m in MUTANTS if asked.only is None or asked.only in m.name):
        with tempfile.TemporaryDirectory(prefix="vlmq-mutant-") as root, tempfile.TemporaryDirectory() as logs:
            plan = Plan(asked.seed, faults=mutant.times * len(mutant.faults), clients=6, lease_s=4.0, peace_s=40.0)
            tree = plant(mutant, Path(root))
            Path(root).chmod(0o755)
            result = run(
                replace(plan, only=mutant.faults, kinds=mutant.kinds, root=tree), Path(logs), lambda line: None
            )
        found = result.findings[0][:200] if result.findings else "NOTHING"
        print(f"{mutant.name}: found {len(result.findings)}: {found}", flush=True)
        if not result.findings:
            survived.append(mutant.name)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
