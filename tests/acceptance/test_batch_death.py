"""A batch, and the end of everything that works at it: each line has its one result."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import openai
import psycopg
import pytest

from tests.acceptance.batches import begin, ended, results
from tests.acceptance.bodies import chat
from tests.acceptance.system import MODEL, Process, System
from tests.fixtures.eventually import eventually
from worker.settings import ModelSettings

pytestmark = pytest.mark.acceptance

LINES = 450
"""More than the batch process takes in two steps."""
WRONG = (7, 250, 449)
"""Lines that are refused: their answers stand in the error file."""
PLACES = ModelSettings.load(MODEL).places


def body(number: int) -> dict[str, Any]:
    asked = chat(f"Tell of day {number}.", max_tokens=tokens_of(number), ignore_eos=True)
    return asked | {"temperature": 9} if number in WRONG else asked


def tokens_of(number: int) -> int:
    return 20 + number * 7 % 30


def kill(system: System, *names: str) -> list[Process]:
    """With -9, one right after the other; those that had ended before count for nothing."""
    killed = [process for process in system.processes if process.name in names and process.popen.poll() is None]
    for process in killed:
        process.popen.kill()
    for process in killed:
        process.popen.wait(30)
    return killed


class Rows:
    """What the database knows of the batch's jobs."""

    def __init__(self, database: psycopg.Connection[Any]) -> None:
        self._database = database

    def count(self, condition: str = "true") -> int:
        (found,) = self._database.execute(f"SELECT count(*) FROM jobs WHERE {condition}").fetchone() or (0,)
        return int(found)

    def ended(self) -> dict[str, list[Any]]:
        """What must never change again, by job."""
        rows = self._database.execute(
            "SELECT id, attempt, done_at, token_count, CAST(usage AS text) FROM jobs WHERE done_at IS NOT NULL"
        )
        return {job_id: told for job_id, *told in rows}

    def attempts(self) -> dict[str, list[str]]:
        """How the attempts at each job ended, in their order."""
        rows = self._database.execute(
            "SELECT job_id, array_agg(ended_as ORDER BY number) FROM job_attempts GROUP BY job_id"
        )
        return dict(rows.fetchall())


@pytest.fixture
def rows(own_system: System) -> Iterator[Rows]:
    with psycopg.connect(own_system.settings.database_url, autocommit=True) as database:
        yield Rows(database)


@pytest.fixture
def system(own_system: System) -> System:
    own_system.start_api()
    own_system.start_maintenance()
    own_system.start_worker()
    return own_system


@pytest.mark.timeout(400)
def test_batch_whose_every_process_is_killed_ends_with_each_line_once(system: System, rows: Rows) -> None:
    port = system.url.rsplit(":", 1)[1]
    with openai.OpenAI(base_url=f"{system.url}/v1", api_key="none", max_retries=5) as client:
        batch = begin(client, map(body, range(LINES)))
        system.start_batches()
        eventually("the first lines are jobs", rows.count)
        kill(system, "batches")
        system.start_batches()
        eventually("some lines have their answer", lambda: rows.count("state = 'incomplete'") >= PLACES)
        assert len(kill(system, "batches", "worker", "api")) == 3
        before = rows.ended()
        assert before and rows.count("state = 'in_progress'"), "nothing was killed in the middle"
        system.start("api", "api", VLMQ_API_PORT=port)
        system.start_batches()
        system.start_worker()
        eventually("no line waits or runs", lambda: not rows.count("state IN ('queued', 'in_progress')"))
        kill(system, "batches")
        system.start_batches()
        done = ended(client, batch.id)
        good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
        after, attempts = rows.ended(), rows.attempts()
    assert (done.status, done.errors) == ("completed", None)
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": LINES, "completed": LINES - len(WRONG), "failed": len(WRONG)}
    wrong = {f"line-{number}" for number in WRONG}
    assert Counter(line["custom_id"] for line in bad) == Counter(wrong)
    assert Counter(line["custom_id"] for line in good) == Counter({f"line-{n}" for n in range(LINES)} - wrong)
    drawn = {line["custom_id"]: line["response"]["body"]["usage"]["completion_tokens"] for line in good}
    assert drawn == {f"line-{n}": tokens_of(n) for n in range(LINES) if n not in WRONG}
    assert done.usage is not None and done.usage.output_tokens == sum(drawn.values())
    # What was stored before the kill was left alone, and only what ran at the kill ran once more.
    assert {job_id: after[job_id] for job_id in before} == before
    assert len(after) == len(good) == len({line["response"]["body"]["id"] for line in good})
    lost = [job_id for job_id, ends in attempts.items() if ends != ["finished"]]
    assert all(attempts[job_id] == ["lease_expired", "finished"] for job_id in lost), attempts
    assert 0 < len(lost) <= PLACES + 1
    assert sum(told[2] for told in after.values()) == sum(drawn.values())
