"""Deliveries are written with the end that they tell, and only to those who asked."""

import psycopg
import pytest
from psycopg.rows import dict_row

from jobs.database import Database
from jobs.job import AttemptEnd, BatchLine, FinishReason, JobKind, JobState, Origin, Outcome, Usage, Webhook
from jobs.store import PostgresJobStore
from jobs.webhooks import add_batch_event
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.integration

HERE = "https://here.example/hook"
DONE = Outcome(JobState.COMPLETED, (), Usage(1, 1), FinishReason.STOP)


class Bench:
    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.store = PostgresJobStore(self.database)

    def endpoint(self, *types: str, tenant: str = "default", disabled: bool = False) -> str:
        with psycopg.connect(self.url) as connection:
            return connection.execute(
                """INSERT INTO webhook_endpoints (id, tenant, name, url, event_types, secret, disabled_at)
                   VALUES (%s, %s, 'x', 'https://there.example', %s, 'whsec_', CASE WHEN %s THEN now() END)
                   RETURNING id""",
                (f"we_{'-'.join(types)}{tenant}{disabled}", tenant, list(types), disabled),
            ).fetchone()[0]

    def ended(self, **values) -> str:
        job = self.store.insert(new_job(**values))
        claimed = self.store.claim("tiny", "w")
        self.store.finish(job.id, claimed.attempt, DONE)
        return job.id

    def deliveries(self) -> list[dict]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM webhook_deliveries ORDER BY number").fetchall()

    def told(self) -> list[tuple]:
        return [(row["endpoint_id"] or row["url"], row["event_type"], row["subject"]) for row in self.deliveries()]


@pytest.fixture
def bench(database_url):
    made = Bench(database_url)
    yield made
    made.database.close()


def test_end_of_a_background_response_is_told_to_the_endpoints_that_listen(bench):
    both = bench.endpoint("response.completed", "job.completed")
    bench.endpoint("response.failed", "batch.completed")
    bench.endpoint("response.completed", tenant="other")
    job_id = bench.ended(kind=JobKind.RESPONSE)
    assert sorted(bench.told()) == [(both, "job.completed", job_id), (both, "response.completed", job_id)]
    first, second = bench.deliveries()
    assert first["event_id"] != second["event_id"] and first["state"] == "pending"


def test_one_event_has_one_id_at_all_endpoints(bench):
    bench.endpoint("response.completed")
    bench.endpoint("response.completed", "response.failed")
    bench.ended(kind=JobKind.RESPONSE, origin=Origin(webhook=Webhook(HERE)))
    rows = bench.deliveries()
    assert len(rows) == 3 and len({row["event_id"] for row in rows}) == 1 and len({row["id"] for row in rows}) == 3


@pytest.mark.parametrize(
    ("values", "types"),
    [
        ({"kind": JobKind.JOB}, ["job.completed"]),
        ({"kind": JobKind.CHAT_COMPLETION, "origin": Origin(background=False)}, []),
        ({"kind": JobKind.RESPONSE, "origin": Origin(background=False)}, []),
        ({"kind": JobKind.RESPONSE, "origin": Origin(batch=BatchLine("batch_1", 1))}, []),
        ({"kind": JobKind.JOB, "origin": Origin(batch=BatchLine("batch_1", 1))}, []),
    ],
)
def test_endpoints_hear_only_of_jobs_that_nobody_waits_for_and_no_batch_counts(bench, values, types):
    bench.endpoint("response.completed", "job.completed")
    bench.ended(**values)
    assert [row["event_type"] for row in bench.deliveries()] == types


@pytest.mark.parametrize(
    ("wanted", "types"),
    [
        ((), ["response.completed"]),
        (("job.completed", "job.failed"), ["job.completed"]),
        (("response.completed", "job.completed"), ["response.completed", "job.completed"]),
        (("response.failed",), []),
    ],
)
def test_jobs_own_webhook_hears_what_it_asked_for_whatever_the_job_is(bench, wanted, types):
    webhook = Webhook(HERE + "?a=b", wanted, "whsec_own")
    origin = Origin(background=False, batch=BatchLine("batch_1", 1), webhook=webhook)
    bench.ended(kind=JobKind.CHAT_COMPLETION, origin=origin)
    rows = bench.deliveries()
    assert [row["event_type"] for row in rows] == types
    for row in rows:
        assert (row["url"], row["secret"], row["target"]) == (HERE + "?a=b", "whsec_own", "https://here.example")


def test_every_way_to_an_end_is_told(bench):
    origin = Origin(webhook=Webhook(HERE, ("job.completed", "job.failed", "job.cancelled", "job.incomplete")))
    queued = bench.store.insert(new_job(origin=origin)).id
    bench.store.cancel(queued)

    incomplete = bench.store.insert(new_job(origin=origin)).id
    bench.store.claim("tiny", "w")
    bench.store.finish(incomplete, 1, Outcome(JobState.INCOMPLETE, (), Usage(1, 1), FinishReason.LENGTH))

    broken = bench.store.insert(new_job(origin=origin, max_attempts=1)).id
    bench.store.claim("tiny", "w")
    bench.store.give_back(broken, 1, AttemptEnd.ENGINE_DIED, "boom", ())

    lost = bench.store.insert(new_job(origin=origin, max_attempts=1)).id
    bench.store.claim("tiny", "silent")
    bench.store.take_back_lost(0.0)

    late = bench.store.insert(new_job(origin=origin)).id
    with psycopg.connect(bench.url) as connection:
        connection.execute("UPDATE jobs SET deadline = now() - interval '1 second' WHERE id = %s", (late,))
    bench.store.fail_past_deadline()
    ends = [(subject, kind) for _, kind, subject in bench.told()]
    assert ends == [
        (queued, "job.cancelled"),
        (incomplete, "job.incomplete"),
        (broken, "job.failed"),
        (lost, "job.failed"),
        (late, "job.failed"),
    ]


def test_end_that_is_written_twice_is_told_once(bench):
    job = bench.store.insert(new_job(origin=Origin(webhook=Webhook(HERE))))
    bench.store.claim("tiny", "w")
    for _ in range(2):
        bench.store.finish(job.id, 1, DONE)
        bench.store.cancel(job.id)
    assert len(bench.told()) == 1


def test_delivery_is_not_there_before_its_transaction_ends_nor_after_it_failed(bench):
    job = bench.store.insert(new_job(origin=Origin(webhook=Webhook(HERE))))

    class Interrupted(Exception):
        pass

    def work(connection):
        from jobs.store import client

        client.cancel(connection, job.id, None)
        assert bench.told() == []
        raise Interrupted

    with pytest.raises(Interrupted):
        bench.database.transaction(work)
    assert bench.told() == [] and bench.store.get(job.id).state is JobState.QUEUED


def test_endpoint_that_is_switched_off_has_its_deliveries_held(bench):
    bench.endpoint("job.completed", disabled=True)
    bench.ended()
    assert [row["state"] for row in bench.deliveries()] == ["held"]


def test_end_of_a_batch_is_told_in_its_transaction(bench):
    here = bench.endpoint("batch.completed", "batch.failed")
    bench.endpoint("batch.expired")
    bench.endpoint("batch.completed", tenant="other")
    bench.database.transaction(lambda on: add_batch_event(on, "default", "batch_1", "completed"))
    assert bench.told() == [(here, "batch.completed", "batch_1")]
