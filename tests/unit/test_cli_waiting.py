"""How `vlmq ask` says how long a job waits."""

import pytest

from cli.asking import waiting

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("position", "eta_s", "said"),
    [
        (3, 11.2, "waiting: 3 jobs ahead, about 12 s …"),
        (1, None, "waiting: 1 job ahead …"),
        (0, 0.4, "waiting: next in line, about 1 s …"),
        (0, None, "waiting: next in line …"),
        (900, 3601.0, "waiting: 900 jobs ahead, about 61 min …"),
    ],
)
def test_waiting_names_jobs_ahead_and_a_time_when_there_is_one(position: int, eta_s: float | None, said: str) -> None:
    assert waiting(position, eta_s) == said
