"""A tenant with thousands of queued lines, and another that asks for one answer: it is the next to begin."""

from typing import Any

import httpx2
import openai
import psycopg
import pytest
from psycopg.rows import namedtuple_row

from tests.acceptance.batches import begin, ended
from tests.acceptance.bodies import chat
from tests.acceptance.system import MODEL, System
from tests.fixtures.eventually import eventually
from worker.settings import ModelSettings

pytestmark = pytest.mark.acceptance

LINES = 5_000
LANES = ("chat", "interactive", "background", "batch")
ROUNDS = 3
PLACES = ModelSettings.load(MODEL).places
"""The engine's slots and the places of those that wait for a slot."""

# By the instants of the rows, all of one clock: what of the other tenant's was claimed while a job waited to be, and
# what was claimed after it and had its first token before.
_OVERTAKEN = """
    SELECT count(*) FILTER (WHERE other.claimed_at BETWEEN mine.queued_at AND mine.claimed_at) AS claims,
           count(*) FILTER (WHERE other.claimed_at > mine.claimed_at
                            AND other.first_token_at < mine.first_token_at) AS admissions
    FROM jobs AS mine JOIN jobs AS other ON other.tenant <> mine.tenant
    WHERE mine.id = %s AND mine.claimed_at IS NOT NULL AND mine.first_token_at IS NOT NULL"""

# The instant of a first token is stored with a partial answer, or with the end.
_UNTOLD = """
    state = 'in_progress' AND first_token_at IS NULL
    AND claimed_at < (SELECT max(done_at) FROM jobs WHERE tenant = 'someone')"""


@pytest.fixture
def system(own_system: System) -> System:
    own_system.start_api()
    own_system.start_maintenance()
    own_system.start_batches()
    own_system.start_worker()
    return own_system


def line(number: int) -> dict[str, Any]:
    # Of many lengths, so that places become free one by one.
    return chat(f"Tell of day {number}.", max_tokens=40 + number * 7 % 60, ignore_eos=True)


def ask_for_one(client: httpx2.Client, lane: str) -> str:
    """The id of a short job of the lane, after its end."""
    body = chat("Quickly, please.", max_tokens=4, ignore_eos=True)
    if lane == "chat":
        answer = client.post("/v1/chat/completions", json=body)
    else:
        answer = client.post("/v1/jobs", json=body | {"priority": lane})
    assert answer.is_success, answer.text
    job_id = str(answer.json()["id"])

    def over() -> bool:
        return client.get(f"/v1/jobs/{job_id}").json()["status"] not in ("queued", "in_progress")

    eventually(f"{job_id} ends", over)
    return job_id


@pytest.mark.timeout(400)
def test_one_job_is_the_next_to_begin_while_another_tenant_has_5000_lines_queued(system: System) -> None:
    """Claims that were on their way when it came are at most one for each place; the engine's slots are taken too."""
    asked: list[str] = []
    someone = {"authorization": f"Bearer {system.key('someone')}"}
    with (
        psycopg.connect(system.settings.database_url, autocommit=True, row_factory=namedtuple_row) as database,
        openai.OpenAI(base_url=f"{system.url}/v1", api_key=system.key("bulk"), max_retries=0) as bulk,
        httpx2.Client(base_url=system.url, headers=someone, timeout=90) as client,
    ):

        def jobs(condition: str) -> int:
            row = database.execute(f"SELECT count(*) AS found FROM jobs WHERE {condition}").fetchone()
            return int(row.found) if row else 0

        batch = begin(bulk, map(line, range(LINES)))
        eventually("every line is a job", lambda: jobs("tenant = 'bulk'") == LINES)
        eventually("every place is taken", lambda: jobs("state = 'in_progress'") >= PLACES)
        asked = [ask_for_one(client, lane) for _ in range(ROUNDS) for lane in LANES]
        assert jobs("state = 'queued'") > LINES // 2, "not enough has waited all the time"
        eventually("their first tokens are known", lambda: not jobs(_UNTOLD))
        overtaken = [database.execute(_OVERTAKEN, [job_id]).fetchone() for job_id in asked]
        bulk.batches.cancel(batch.id)
        assert ended(bulk, batch.id).status == "cancelled"
    counts = [tuple(row) for row in overtaken if row is not None]
    assert len(counts) == ROUNDS * len(LANES)
    # All of them together no more than a single one might have had to wait for.
    assert sum(claims for claims, _ in counts) <= PLACES, counts
    assert sum(admissions for _, admissions in counts) <= PLACES, counts
