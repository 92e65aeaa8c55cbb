"""The audit of the chaos runs finds what is planted: a harness that cannot fail proves nothing."""

import contextlib
import json
import random
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
import redis

from jobs.database import Database
from jobs.event_log import stream_key
from jobs.job import AttemptEnd, JobState, Outcome, Token, Usage
from jobs.queue import queue_name
from jobs.settings import ServiceSettings
from jobs.store import PostgresJobStore
from tests.chaos.audit import clients, jobs, webhooks
from tests.chaos.client import Client, Seen
from tests.chaos.history import History, Write
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import leftovers, memory
from tests.chaos.ports import Ports
from tests.chaos.receiver import Delivery
from tests.chaos.requests import Answer
from tests.chaos.timeline import attempts_of, continued, ends, fences, losses, told
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.integration

WHOLE = "a whole answer"
ANSWERS = {"request": Answer("completed", WHOLE, 3)}
TOKENS = tuple(Token(number, "x") for number in range(3))
DONE = Outcome(JobState.COMPLETED, TOKENS, Usage(1, 3))
GOOD = frozenset({"completed"})


@pytest.fixture
def store(database_url: str) -> Iterator[PostgresJobStore]:
    database = Database(database_url)
    yield PostgresJobStore(database)
    database.close()


@pytest.fixture
def ledger(database_url: str) -> Ledger:
    return Ledger(database_url)


def seen(**values: Any) -> Seen:
    return Seen("00001-poll", "request", GOOD, **values)


def finished(store: PostgresJobStore, worker: str = "host:7:a") -> str:
    store.insert(new_job())
    job = store.claim("tiny", worker)
    assert job is not None
    return store.finish(job.id, job.attempt, DONE).id


def test_runs_side_by_side_never_get_the_same_port() -> None:
    one, other = Ports(), Ports()
    ports = [each.reserve() for each in (one, other) * 20]
    one.close()
    other.close()
    assert len(set(ports)) == 40


# -- what clients are told


def served(events: Sequence[dict[str, Any]]) -> contextlib.AbstractContextManager[str]:
    """The address of a server that streams just these events."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for event in events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

        def log_message(self, *args: Any) -> None: ...

    @contextlib.contextmanager
    def serve() -> Iterator[str]:
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    return serve()


@pytest.mark.parametrize(
    "sequences", [(0, 1, 3), (0, 1, 1, 2, 3), (0, 2, 1, 3)], ids=["a gap", "a repeat", "another order"]
)
def test_a_reader_complains_of_a_log_with(sequences: tuple[int, ...]) -> None:
    reader = seen()
    with served([{"sequence": number} for number in sequences]) as url:
        client = Client([url], random.Random(1), lambda: False)
        client.follow(reader, "/events", "sequence", "starting_after", lambda event: event["sequence"] == 3)
        client.close()
    assert len(reader.complaints) == 1
    assert "where" in reader.complaints[0] and "was expected" in reader.complaints[0]


def test_a_reader_of_a_whole_log_complains_of_nothing() -> None:
    reader = seen()
    with served([{"sequence": number} for number in range(4)]) as url:
        client = Client([url], random.Random(1), lambda: False)
        events = client.follow(reader, "/e", "sequence", "starting_after", lambda event: event["sequence"] == 3)
        client.close()
    assert [event["sequence"] for event in events] == [0, 1, 2, 3] and not reader.complaints


def test_a_client_that_saw_what_it_should_is_no_finding() -> None:
    assert clients([seen(job_ids={"job_1"}, states=["queued", "completed", "completed"], texts=[WHOLE])], ANSWERS) == []


@pytest.mark.parametrize(
    ("planted", "finding"),
    [
        ({"states": ["completed", "cancelled"]}, "saw more than one end"),
        ({"states": ["failed"]}, "ended as ['failed']"),
        ({"job_ids": {"job_1", "job_2"}}, "one operation made several jobs"),
        ({"texts": ["a whole anwser"]}, "instead of"),
        ({"partial_texts": ["whole"]}, "is no beginning of"),
        ({"complaints": ["event 3 came where 2 was expected"]}, "event 3 came where 2 was expected"),
    ],
)
def test_what_a_client_should_not_have_seen_is_found(planted: dict[str, Any], finding: str) -> None:
    assert any(finding in found for found in clients([seen(**planted)], ANSWERS))


# -- what the rows say


def test_a_job_that_came_to_its_end_is_no_finding(store: PostgresJobStore, ledger: Ledger) -> None:
    assert jobs(ledger, [seen(job_ids={finished(store)}, states=["completed"])]) == []


def test_a_job_without_an_end_is_found_with_its_open_attempt(store: PostgresJobStore, ledger: Ledger) -> None:
    store.insert(new_job())
    store.claim("tiny", "host:7:a")
    found = " ".join(jobs(ledger, []))
    assert "is in_progress after everything" in found and "has an attempt that never ended" in found


def test_a_job_that_is_gone_or_ended_otherwise_than_told_is_found(store: PostgresJobStore, ledger: Ledger) -> None:
    gone = seen(job_ids={"job_gone"})
    otherwise = seen(job_ids={finished(store)}, states=["cancelled"])
    found = " ".join(jobs(ledger, [gone, otherwise]))
    assert "job_gone was accepted and is gone" in found and "was told as cancelled and is completed" in found


def test_two_jobs_of_one_operation_are_found(store: PostgresJobStore, ledger: Ledger) -> None:
    for _ in range(2):
        store.insert(new_job(metadata={"operation": "00001-twice"}))
    assert "00001-twice: 2 jobs of one operation" in jobs(ledger, [])


def delivery(job_id: str, **values: Any) -> Delivery:
    return Delivery(
        **({"webhook_id": "1", "event_type": "job.completed", "state": "completed", "accepted": True} | values),
        job_id=job_id,
    )


@pytest.mark.parametrize(
    ("deliveries", "finding"),
    [
        ([], "its webhook never came (0 tries)"),
        ([{"accepted": False}], "its webhook never came (1 tries)"),
        ([{}, {"webhook_id": "2"}], "its webhook came under several ids"),
        ([{"event_type": "job.failed"}], "told as job.failed, is completed"),
        ([{"state": "in_progress"}], "told while it was in_progress"),
    ],
)
def test_a_webhook_that_is_lost_or_wrong_is_found(
    store: PostgresJobStore, database_url: str, ledger: Ledger, deliveries: list[dict[str, Any]], finding: str
) -> None:
    job_id = finished(store)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobs SET webhook = '{}' WHERE id = %s", [job_id])
    assert webhooks(ledger, [delivery(job_id)]) == []
    assert any(finding in found for found in webhooks(ledger, [delivery(job_id, **each) for each in deliveries]))


# -- the history of all rows


def write(before: str, after: str, writer: str, **values: Any) -> Write:
    return Write(
        "job_1",
        **({"attempt": 1, "worker": "host:7:a", "tokens": 3} | values),
        before=before,
        after=after,
        writer=writer,
    )


def test_the_history_tells_who_wrote_what_and_which_faults_had_begun(database_url: str, ledger: Ledger) -> None:
    history = History(ledger)
    history.begin()
    database = Database(f"{database_url}&application_name=worker-a.001")
    store = PostgresJobStore(database)
    history.mark("API killed")
    job_id = finished(store)
    database.close()
    claimed, ended = history.read()
    assert (claimed.before, claimed.after, claimed.worker) == ("queued", "in_progress", None)
    assert (ended.before, ended.after, ended.worker, ended.tokens) == ("in_progress", "completed", "host:7:a", 3)
    assert {claimed.writer, ended.writer} == {"worker-a.001"} and ended.faults == ("API killed",)
    assert ended.job_id == job_id and ends([claimed, ended]) == [] and fences([ended], {"worker-a.001": 7}) == []


def test_a_second_end_is_found_unless_a_dead_letter_was_given_back() -> None:
    first, second = write("in_progress", "failed", "worker-a.001"), write("queued", "completed", "worker-b.002")
    assert ends([first, write("failed", "queued", "api-a.003"), second]) == []
    (found,) = ends([first, second])
    assert "ended more than once: failed by worker-a.001, completed by worker-b.002" in found


def test_a_write_of_a_worker_that_has_lost_the_job_is_found() -> None:
    pids = {"worker-a.001": 7, "worker-b.002": 8, "maintenance-a.003": 9}
    assert fences([write("in_progress", "queued", "maintenance-a.003")], pids) == []
    (found,) = fences([write("in_progress", "completed", "worker-b.002")], pids)
    assert found == "worker-b.002 wrote to job_1, which worker-a.001 ran in attempt 1: completed with 3 tokens"


def test_an_attempt_that_is_lost_to_no_fault_is_found(store: PostgresJobStore, ledger: Ledger) -> None:
    store.insert(new_job(id="job_1"))
    job = store.claim("tiny", "host:7:a")
    assert job is not None
    store.give_back(job.id, 1, AttemptEnd.ENGINE_DIED, "signal 9", TOKENS[:1])
    attempts = attempts_of(ledger)
    struck = write("in_progress", "queued", "worker-a.001", faults=("API killed", "engine killed"))
    assert losses([struck], attempts) == []
    (found,) = losses([write("in_progress", "queued", "worker-a.001", faults=("API killed",))], attempts)
    assert "job_1: attempt 1 was lost as engine_died to no fault" in found


def test_attempts_that_do_not_tell_everything_are_found(
    store: PostgresJobStore, ledger: Ledger, database_url: str
) -> None:
    store.insert(new_job(id="job_1"))
    store.claim("tiny", "host:7:a")
    store.give_back("job_1", 1, AttemptEnd.ENGINE_DIED, "", TOKENS[:2])
    store.claim("tiny", "host:8:b")
    store.finish("job_1", 2, DONE)
    attempts = {job_id.replace("job_", "resp_"): listed for job_id, listed in attempts_of(ledger).items()}
    assert told("", attempts) == [] and continued(attempts) == {"resp_1": 2}
    attempts["resp_1"][0] |= {"number": 3, "ended_as": None, "tokens": 4}
    found = " ".join(told("", attempts))
    assert "numbered [3, 2]" in found and "tells no worker or no reason" in found and "fewer tokens" in found


# -- what is left behind


def test_nothing_left_is_no_finding(service_settings: ServiceSettings, store: PostgresJobStore, ledger: Ledger) -> None:
    finished(store)
    assert leftovers(service_settings, ledger, set(), wait_s=0) == []


def test_everything_that_is_left_behind_is_found(service_settings: ServiceSettings, ledger: Ledger) -> None:
    blobs = Path(service_settings.blob_url) / "ab"
    blobs.mkdir(parents=True)
    (blobs / "orphan").write_bytes(b"x")
    with ledger.connection() as connection, redis.Redis.from_url(service_settings.redis_url) as client:
        connection.execute(
            "INSERT INTO files (id, tenant, purpose, filename, bytes, digest) VALUES ('f', 't', 'p', 'n', 1, 'missing')"
        )
        connection.execute(
            "INSERT INTO workers (id, model, host, pid, slots, device, stats) "
            """VALUES ('host:7:a', 'tiny', 'host', 7, 1, 'cpu', '{"running": 2, "waiting": 0}')"""
        )
        connection.execute(
            "INSERT INTO webhook_deliveries (id, tenant, target, event_id, event_type, subject, state) "
            "VALUES ('whd', 't', 'x', 'e', 'job.completed', 'job_1', 'pending')"
        )
        prefix = service_settings.redis_prefix
        left = [stream_key(prefix, "job_1"), prefix + queue_name("tiny"), f"{prefix}unacked"]
        client.xadd(left[0], {"e": "1"})
        client.rpush(left[1], "bell")
        client.hset(left[2], "tag", "message")
        found = leftovers(service_settings, ledger, set(), wait_s=0)
        client.delete(*left)
    assert [finding.split(": ")[1].split(" ", 1)[1] for finding in found] == [
        "event logs in Redis",
        "queues with messages in Redis",
        "messages that were never acknowledged",
        "webhooks on their way",
        "blobs that no job refers to",
        "blobs that are missing",
        "workers that are gone",
        "generations in an engine",
    ]


def test_a_process_that_grew_is_found_and_one_that_was_replaced_is_not() -> None:
    before = {"api-a (1)": 100 << 20, "worker-a (2)": 100 << 20}
    assert memory(before, {"api-a (1)": 121 << 20, "worker-a (3)": 400 << 20}) == []
    assert memory(before, {"api-a (1)": 123 << 20}) == ["api-a (1) grew from 100 to 123 MiB"]
