"""Three tenants that always have jobs waiting, and one worker: what each of them gets of it."""

import pytest

from bench.saturation import Had, Saturation, Tenant, shares
from tests.acceptance.system import System
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.acceptance

TENANTS = (
    # Small ones, of which many make few tokens; estimated at a half, at most, and at two thirds of what they come to.
    Tenant("acme", 1.0, words=6, picture=None, answer_tokens=8),
    Tenant("bolt", 2.0, words=1, picture=(400, 100), answer_tokens=24),
    Tenant("cord", 4.0, words=4, picture=None, answer_tokens=60),
)
SETTLED, COUNTED = 40_000, 120_000
"""Tokens until every place of the worker has changed hands, and those that are then shared."""


@pytest.mark.timeout(600)
def test_shares_of_a_real_worker_keep_the_weights_within_a_tenth(own_system: System) -> None:
    own_system.start_api()
    own_system.start_maintenance()
    own_system.start_worker()
    with Saturation(own_system, TENANTS) as saturation:

        def had(tokens: int) -> dict[str, Had] | None:
            now = saturation.had()
            return now if sum(each.tokens for each in now.values()) >= tokens else None

        eventually("everybody's jobs wait", saturation.full)
        before: dict[str, Had] = eventually("work goes on", lambda: had(SETTLED), every_s=0.2)
        enough = sum(each.tokens for each in before.values()) + COUNTED
        after: dict[str, Had] = eventually("it was shared", lambda: had(enough), within_s=400, every_s=0.2)
        assert min(saturation.least_waiting.values()) > 0, "somebody had nothing to do"
    got = {name: each.since(before[name]) for name, each in after.items()}
    assert min(each.jobs for each in got.values()) > 20, got
    found = shares(TENANTS, got)
    assert max(abs(share.deviation) for share in found.values()) < 0.1, (found, got)
