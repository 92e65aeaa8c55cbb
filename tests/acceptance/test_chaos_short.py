"""The short version of `make chaos`: a whole installation under load while its parts die, one seed, a clean audit."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, run

pytestmark = pytest.mark.acceptance

FAULTS = (
    "worker killed",
    "engine killed",
    "worker frozen beyond its lease",
    "API killed",
    "Redis restarted empty",
    "PostgreSQL restarted",
    "network cut from the services",
)
"""One of each kind; the others take the same ways back."""


@pytest.mark.timeout(900)
def test_what_is_killed_frozen_cut_and_lost_under_load_loses_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(seed=6, faults=len(FAULTS), clients=6, lease_s=4.0, only=FAULTS)
    result = run(plan, tmp_path, said.append)
    assert not result.findings, "\n".join([*said, *result.findings])
    assert sorted(result.faults) == sorted(FAULTS) and not result.not_here
    assert result.operations >= plan.clients and result.continued["jobs"] > 0, said
