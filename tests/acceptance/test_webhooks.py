"""Webhooks as their receivers get them, from real processes: ends of batches, and beside a receiver that is dead."""

import threading
from collections.abc import Iterator

import openai
import psycopg
import pytest

from tests.acceptance.batches import CHAT, begin, ended
from tests.acceptance.bodies import chat
from tests.acceptance.system import System
from tests.fixtures.eventually import eventually
from tests.fixtures.receiver import Receiver, receiving, silent_until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

BATCH_EVENTS = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
THREADS = 6
PER_TARGET = 4


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as it:
        yield it


@pytest.fixture
def dead() -> Iterator[Receiver]:
    """Takes connections and requests, and answers none before the test is over."""
    over = threading.Event()
    with receiving() as it:
        it.otherwise = silent_until(over)
        yield it
        over.set()


@pytest.fixture
def delivering(own_system: System) -> System:
    """API, maintenance, worker and deliverer. A try lasts longer than the test, unless it is answered."""
    own_system.environment |= {
        "VLMQ_WEBHOOKS_ALLOWED_HOSTS": "127.0.0.1",
        "VLMQ_WEBHOOKS_TIMEOUT_S": "1000",
        "VLMQ_WEBHOOKS_LEASE_S": "2000",
        "VLMQ_WEBHOOKS_THREADS": str(THREADS),
        "VLMQ_WEBHOOKS_PER_TARGET": str(PER_TARGET),
    }
    own_system.start_api()
    own_system.start_maintenance()
    own_system.start_deliveries()
    own_system.start_worker()
    return own_system


def test_every_end_of_a_batch_is_told_to_a_registered_endpoint(delivering: System, receiver: Receiver) -> None:
    delivering.start_batches()
    with openai.OpenAI(base_url=f"{delivering.url}/v1", api_key="none") as client:
        endpoint = client.webhooks.create(name="batches", url=receiver.url, event_types=BATCH_EVENTS)
        long = [chat("Tell a long story.", max_tokens=1500, ignore_eos=True)] * 40
        file = client.files.create(file=("lines.jsonl", b"nonsense\n"), purpose="batch")
        failed = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        completed = begin(client, [chat(f"Tell of day {number}.") for number in range(3)])
        assert ended(client, completed.id).status == "completed"
        cancelled, expired = begin(client, long), begin(client, long)
        for batch in (cancelled, expired):
            eventually("it runs", lambda it=batch: client.batches.retrieve(it.id).status == "in_progress")
        client.batches.cancel(cancelled.id)
        with psycopg.connect(delivering.settings.database_url) as connection:
            connection.execute("UPDATE batches SET expires_at = now() WHERE id = %s", [expired.id])
        eventually("every end is told", lambda: len(set(receiver.ids())) == 4)
        got = {one.id: one for one in receiver.received}.values()
        told = [client.webhooks.unwrap(one.body, one.headers, secret=endpoint.signing_secret) for one in got]
        assert {(type(event).__name__, event.type, event.data.id) for event in told} == {
            ("BatchCompletedWebhookEvent", "batch.completed", completed.id),
            ("BatchFailedWebhookEvent", "batch.failed", failed.id),
            ("BatchCancelledWebhookEvent", "batch.cancelled", cancelled.id),
            ("BatchExpiredWebhookEvent", "batch.expired", expired.id),
        }
        for event in told:
            assert client.batches.retrieve(event.data.id).status == event.type.removeprefix("batch.")


def test_dead_receiver_stops_neither_jobs_nor_another_receivers_deliveries(
    delivering: System, receiver: Receiver, dead: Receiver
) -> None:
    first = [delivering.submit(chat("Hello", webhook=dead.url)) for _ in range(20)]
    eventually("the dead one has all the tries it may have", lambda: len(dead.received) == PER_TARGET)
    hooks = [dead.url, receiver.url] * 15
    jobs = {delivering.submit(chat(f"Hello {number}", webhook=hook)): hook for number, hook in enumerate(hooks)}
    for job_id in [*first, *jobs]:
        assert delivering.wait(job_id)["status"] == "incomplete"
    alive = {job_id for job_id, hook in jobs.items() if hook == receiver.url}
    eventually(
        "all of the other's have arrived", lambda: {one.event["data"]["id"] for one in receiver.received} == alive
    )
    assert len(receiver.received) == len(alive)
    assert len(dead.received) == PER_TARGET < THREADS
