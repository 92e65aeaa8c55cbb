"""Deliveries to a real receiver: tries, their order in time, signatures, and who may make them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from openai import OpenAI
from standardwebhooks.webhooks import Webhook as StandardWebhook

from jobs.database import Database
from jobs.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled
from jobs.job import JobKind, Origin, Webhook
from jobs.store import PostgresJobStore
from jobs.webhooks.delivery import Answer, Delivery, DeliveryFilter, DeliveryState
from jobs.webhooks.delivery_store import PostgresDeliveries
from jobs.webhooks.destination import Destinations
from jobs.webhooks.endpoint import Endpoint, EndpointChange
from jobs.webhooks.endpoint_store import PostgresWebhookEndpoints
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.event import EVENT_TYPES
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import SCHEDULE_S, WebhookSettings
from jobs.webhooks.signature import new_secret
from tests.fixtures.jobs import new_job
from tests.fixtures.receiver import Receiver, cut_short, endless, receiving, silence, status
from tests.fixtures.worker import eventually
from worker.deliveries.courier import Courier

pytestmark = pytest.mark.integration

TENANT = "default"


class Bench:
    """A courier that answers when told to, and a database whose clock can be moved on."""

    def __init__(self, database_url: str, receiver: Receiver, **settings: object) -> None:
        self.url = database_url
        self.database = Database(database_url, pool_size=6)
        self.jobs = PostgresJobStore(self.database)
        usual = {"allowed_hosts": (receiver.place,), "timeout_s": 1.0, "jitter": 0.0}
        self.settings = WebhookSettings(**{**usual, **settings})
        self.errands = PostgresErrands(self.database, self.settings)
        self.deliveries = PostgresDeliveries(self.database)
        self.endpoints = PostgresWebhookEndpoints(self.database, 20)
        self.sender = Sender(Destinations.of(self.settings), self.settings.timeout_s)
        self.courier = Courier(self.errands, self.sender)
        self.receiver = receiver

    def endpoint(self, *types: str) -> Endpoint:
        return self.endpoints.create(TENANT, "mine", self.receiver.url, types or EVENT_TYPES[:4])

    def ended(self, **values: object) -> str:
        job = self.jobs.insert(new_job(**{"kind": JobKind.RESPONSE, **values}))
        self.jobs.cancel(job.id)
        return job.id

    def only(self) -> Delivery:
        (delivery,) = self.deliveries.page(TENANT, DeliveryFilter())
        return delivery

    def pause_s(self) -> float:
        """Until the only delivery's next try."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT next_at - now() FROM webhook_deliveries").fetchone()
        return row[0].total_seconds()

    def pass_time(self, seconds: float) -> None:
        """Of what is still to come; events stay as they were."""
        self._move(
            seconds,
            ("webhook_deliveries", ("next_at", "leased_until")),
            ("webhook_endpoints", ("failing_since", "old_secret_until")),
            ("webhook_secrets", ("old_secret_until",)),
        )

    def age(self, seconds: float) -> None:
        """Of what has happened."""
        self._move(seconds, ("webhook_deliveries", ("created_at",)))

    def _move(self, seconds: float, *tables: tuple[str, tuple[str, ...]]) -> None:
        older = timedelta(seconds=seconds)
        with psycopg.connect(self.url) as connection:
            for table, columns in tables:
                moved = ", ".join(f"{column} = {column} - %(older)s" for column in columns)
                connection.execute(f"UPDATE {table} SET {moved}", {"older": older})

    def turn(self) -> None:
        """The next try of whatever waits for one."""
        self.pass_time(max(self.pause_s(), 0) + 0.001)
        self.courier.answer()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def bench(database_url: str, receiver: Receiver) -> Iterator[Bench]:
    made = Bench(database_url, receiver)
    yield made
    made.database.close()


def test_event_arrives_signed_and_thin_and_unwraps_with_the_official_clients(bench, receiver):
    endpoint = bench.endpoint()
    job_id = bench.ended()
    bench.courier.answer()
    (got,) = receiver.received
    assert got.headers["content-type"] == "application/json" and got.path == "/hook"
    assert StandardWebhook(endpoint.secret).verify(got.body, got.headers) == got.event
    unwrapped = OpenAI(api_key="x").webhooks.unwrap(got.body, got.headers, secret=endpoint.secret)
    assert (type(unwrapped).__name__, unwrapped.type) == ("ResponseCancelledWebhookEvent", "response.cancelled")
    assert (unwrapped.id, unwrapped.data.id, unwrapped.object) == (got.id, job_id, "event")
    delivery = bench.only()
    assert delivery.state is DeliveryState.DELIVERED and delivery.event.id == got.id
    assert [(a.number, a.status_code) for a in delivery.attempts] == [(1, 200)] and delivery.attempts[0].ended_at


def test_jobs_own_webhook_is_signed_with_its_secret_or_the_tenants(bench, receiver):
    own = new_secret()
    bench.ended(origin=Origin(webhook=Webhook(receiver.url, (), own)))
    bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    bench.courier.answer()
    first, second = receiver.received
    StandardWebhook(own).verify(first.body, first.headers)
    StandardWebhook(bench.endpoints.secret(TENANT).secret).verify(second.body, second.headers)


def test_rotated_secret_signs_beside_the_old_one_for_24_hours(bench, receiver):
    endpoint = bench.endpoint()
    rotated = bench.endpoints.rotate(endpoint.id, TENANT, overlap=True)
    bench.ended()
    bench.courier.answer()
    for secret in (endpoint.secret, rotated.secret):
        StandardWebhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)
    bench.pass_time(24 * 3600)
    bench.ended()
    bench.courier.answer()
    assert receiver.received[1].headers["webhook-signature"].count("v1,") == 1
    StandardWebhook(rotated.secret).verify(receiver.received[1].body, receiver.received[1].headers)
    bench.endpoints.rotate(endpoint.id, TENANT, overlap=False)
    bench.ended()
    bench.courier.answer()
    assert receiver.received[2].headers["webhook-signature"].count("v1,") == 1


def test_failing_receiver_is_tried_on_schedule_with_one_id_and_then_no_more(bench, receiver):
    bench.endpoint()
    bench.ended()
    receiver.otherwise = status(500)
    bench.courier.answer()
    pauses = []
    while bench.only().state is DeliveryState.PENDING:
        pauses.append(round(bench.pause_s()))
        bench.turn()
    assert pauses == [int(pause) for pause in SCHEDULE_S[1:]]
    assert len(receiver.received) == 10 and len(set(receiver.ids())) == 1
    assert len({one.body for one in receiver.received}) == 1
    delivery = bench.only()
    assert delivery.state is DeliveryState.FAILED
    assert [a.detail for a in delivery.attempts] == ["answered 500"] * 10


def test_pauses_vary_within_the_jitter(database_url, receiver):
    bench = Bench(database_url, receiver, schedule_s=(0.0, 1000.0), jitter=0.1)
    bench.endpoint()
    receiver.otherwise = status(500)
    seen = []
    for _ in range(5):
        bench.ended()
        bench.courier.answer()
        seen.append(bench.pause_s())
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM webhook_deliveries")
    bench.database.close()
    assert all(890 < pause <= 1100 for pause in seen) and max(seen) - min(seen) > 1


def test_every_kind_of_failure_is_tried_again_until_it_arrives(bench, receiver):
    bench.endpoint()
    job_id = bench.ended()
    private = status(301, location="http://127.0.0.1:9/")
    receiver.script = [silence(3.0), *[status(500)] * 5, private, cut_short]
    bench.courier.answer()
    for _ in range(7):
        bench.turn()
    receiver.stop()
    bench.turn()
    assert bench.only().state is DeliveryState.PENDING
    receiver.start()
    with psycopg.connect(bench.url) as connection:
        connection.execute("UPDATE webhook_deliveries SET next_at = now()")
    bench.courier.answer()
    delivery = bench.only()
    assert delivery.state is DeliveryState.DELIVERED and delivery.event.subject == job_id
    assert set(receiver.ids()) == {delivery.event.id} and len(receiver.received) == 9
    codes = [attempt.status_code for attempt in delivery.attempts]
    assert codes == [None, 500, 500, 500, 500, 500, 301, 200, None, 200]
    details = [attempt.detail for attempt in delivery.attempts]
    assert details[0].startswith("no answer in time") and details[6].endswith("redirects are not followed")
    assert details[7].startswith("answered 200 and broke off") and details[8].startswith("cannot be reached")


def test_answer_without_end_is_read_to_a_bound(bench, receiver):
    bench.endpoint()
    bench.ended()
    receiver.script = [endless]
    bench.courier.answer()
    assert bench.only().state is DeliveryState.DELIVERED


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_receiver_says_when_it_is_ready_again(bench, receiver, code):
    bench.endpoint()
    bench.ended()
    later = datetime.now(UTC) + timedelta(seconds=3000)
    receiver.script = [
        status(code, retry_after="1000"),
        status(code, retry_after=later.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        status(code, retry_after="1"),
        status(code, retry_after="999999999"),
        status(code, retry_after="soon"),
    ]
    pauses = []
    bench.courier.answer()
    for _ in range(4):
        pauses.append(round(bench.pause_s(), -2))
        bench.turn()
    assert pauses == [1000, 3000, 1800, 86400]
    assert round(bench.pause_s()) == 18000


def test_retry_after_beyond_any_calendar_is_no_reason_to_drop_the_answer(bench, receiver):
    bench.endpoint()
    bench.ended()
    receiver.script = [status(503, retry_after=f"Mon, 01 Jan {9**30} 00:00:00 GMT")]
    bench.courier.answer()
    assert round(bench.pause_s()) == 5
    assert [attempt.status_code for attempt in bench.only().attempts] == [503]


def test_job_may_be_deleted_just_while_its_webhook_is_written_down(bench, receiver):
    job_id = bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    errand = bench.errands.claim()
    assert errand is not None
    with ThreadPoolExecutor(2) as pool, psycopg.connect(bench.url) as connection:
        connection.execute("SELECT FROM webhook_deliveries FOR UPDATE")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        deleting = pool.submit(bench.jobs.delete, job_id, TENANT)
        eventually("the owner waits", lambda: connection.execute(waiting).fetchone()[0] >= 1)
        settling = pool.submit(bench.errands.settle, errand, Answer(200))
        eventually("the deliverer waits too", lambda: connection.execute(waiting).fetchone()[0] >= 2)
        connection.commit()
        deleting.result()
        assert settling.result() is None
        assert connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() == (0,)


def test_retry_after_of_other_answers_changes_nothing(bench, receiver):
    bench.endpoint()
    bench.ended()
    receiver.script = [status(500, retry_after="1000")]
    bench.courier.answer()
    assert round(bench.pause_s()) == 5


def test_endpoint_that_is_gone_is_disabled_and_its_deliveries_wait_until_it_is_enabled(bench, receiver):
    endpoint = bench.endpoint()
    bench.ended()
    receiver.script = [status(410)]
    bench.courier.answer()
    disabled = bench.endpoints.get(endpoint.id, TENANT)
    assert disabled.disabled_at is not None and disabled.disabled_because == "it answered 410 Gone"
    bench.ended()
    bench.pass_time(86400)
    bench.courier.answer()
    assert len(receiver.received) == 1
    assert {d.state for d in bench.deliveries.page(TENANT, DeliveryFilter())} == {DeliveryState.HELD}
    enabled = bench.endpoints.update(endpoint.id, TENANT, EndpointChange(enabled=True))
    assert enabled.disabled_at is None and enabled.disabled_because is None
    bench.courier.answer()
    assert len(receiver.received) == 3 and len(set(receiver.ids())) == 2


def test_gone_ends_a_jobs_own_webhook(bench, receiver):
    bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    receiver.script = [status(410)]
    bench.courier.answer()
    assert bench.only().state is DeliveryState.FAILED


def test_endpoint_that_fails_for_three_days_is_disabled_and_says_so(bench, receiver):
    endpoint = bench.endpoint()
    receiver.otherwise = status(500)
    bench.ended()
    bench.courier.answer()
    bench.pass_time(3 * 86400 - 60)
    bench.courier.answer()
    assert bench.endpoints.get(endpoint.id, TENANT).disabled_at is None
    bench.pass_time(86400)
    bench.courier.answer()
    disabled = bench.endpoints.get(endpoint.id, TENANT)
    assert disabled.disabled_because.startswith("nothing has arrived since ")
    assert disabled.disabled_because.endswith("answered 500")


def test_one_success_starts_the_three_days_anew(bench, receiver):
    endpoint = bench.endpoint()
    bench.ended()
    receiver.script = [status(500)]
    bench.courier.answer()
    assert bench.endpoints.get(endpoint.id, TENANT).failing_since is not None
    bench.turn()
    assert bench.endpoints.get(endpoint.id, TENANT).failing_since is None


def test_many_deliverers_at_once_make_each_try_once(database_url, receiver):
    # Patient: a receiver that is slow for once would be tried twice, and rightly.
    bench = Bench(database_url, receiver, timeout_s=20.0)
    bench.endpoint()
    for _ in range(30):
        bench.ended()
    threads = [threading.Thread(target=bench.courier.answer) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.courier.answer()
    bench.database.close()
    assert len(receiver.received) == 30 == len(set(receiver.ids()))


def test_try_of_a_deliverer_that_died_is_made_again_and_its_late_word_is_not_written(bench, receiver):
    bench.endpoint()
    bench.ended()
    lost = bench.errands.claim()
    assert bench.errands.claim() is None and bench.errands.waiting(10) == []
    bench.pass_time(bench.settings.lease_s + 1)
    again = bench.errands.claim()
    assert (again.delivery_id, again.attempt, again.event) == (lost.delivery_id, 2, lost.event)
    answer = bench.sender.send(lost.url, lost.event, lost.keys)
    assert bench.errands.settle(lost, answer) is None
    assert bench.only().state is DeliveryState.PENDING
    assert bench.errands.settle(again, answer) is DeliveryState.DELIVERED
    assert bench.errands.settle(again, answer) is None


def test_lease_from_before_the_clock_was_set_back_holds_nothing_up(bench, receiver):
    bench.endpoint()
    bench.ended()
    lost = bench.errands.claim()
    bench.pass_time(-3600)
    with psycopg.connect(bench.url) as connection:
        connection.execute("UPDATE webhook_deliveries SET next_at = now()")
    assert bench.errands.waiting(10) == [lost.delivery_id]
    again = bench.errands.claim()
    assert (again.delivery_id, again.attempt) == (lost.delivery_id, 2)
    assert bench.errands.claim() is None


def test_silent_receiver_leaves_room_for_the_others(database_url, receiver):
    bench = Bench(database_url, receiver, per_target=2)
    bench.endpoint()
    for _ in range(5):
        bench.ended()
    assert len(bench.errands.waiting(10)) == 2  # more could not be claimed at once
    busy = [bench.errands.claim() for _ in range(2)]
    assert bench.errands.claim() is None and bench.errands.waiting(10) == []
    with receiving() as other:
        bench.ended(kind=JobKind.JOB, origin=Origin(webhook=Webhook(other.url)))
        assert bench.errands.claim().url == other.url
    bench.errands.settle(busy[0], bench.sender.send(busy[0].url, busy[0].event, busy[0].keys))
    assert bench.errands.claim() is not None
    bench.database.close()


def test_replay_sends_the_same_event_again(bench, receiver):
    bench.endpoint()
    bench.ended()
    bench.courier.answer()
    replayed = bench.deliveries.replay(bench.only().id, TENANT)
    assert replayed.state is DeliveryState.PENDING
    bench.courier.answer()
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert bench.only().state is DeliveryState.DELIVERED and len(bench.only().attempts) == 2
    with pytest.raises(WebhookDeliveryNotFound):
        bench.deliveries.replay(bench.only().id, "other")


def test_replay_since_an_instant_sends_what_happened_then_and_later(bench, receiver):
    endpoint = bench.endpoint()
    bench.ended()
    bench.age(3600)
    recent = {bench.ended(), bench.ended()}
    bench.courier.answer()
    since = datetime.now(UTC) - timedelta(minutes=30)
    assert bench.deliveries.replay_since(endpoint.id, TENANT, since) == 2
    assert bench.deliveries.replay_since(endpoint.id, TENANT, since) == 0
    bench.courier.answer()
    assert {one.event["data"]["id"] for one in receiver.received[3:]} == recent
    bench.endpoints.update(endpoint.id, TENANT, EndpointChange(enabled=False))
    with pytest.raises(WebhookEndpointDisabled):
        bench.deliveries.replay_since(endpoint.id, TENANT, since)


def test_removed_endpoint_takes_its_deliveries_along_even_under_way(bench, receiver):
    endpoint = bench.endpoint()
    bench.ended()
    errand = bench.errands.claim()
    bench.endpoints.delete(endpoint.id, TENANT)
    answer = bench.sender.send(errand.url, errand.event, errand.keys)
    assert bench.errands.settle(errand, answer) is None
    assert bench.deliveries.page(TENANT, DeliveryFilter()) == []


def test_old_deliveries_are_forgotten_but_not_those_that_wait(bench, receiver):
    bench.endpoint()
    bench.ended()
    bench.courier.answer()
    receiver.script = [status(500)]
    waiting = bench.ended()
    bench.courier.answer()
    bench.age(1000)
    assert bench.deliveries.expire(2000) == 0
    assert bench.deliveries.expire(500) == 1
    assert bench.only().event.subject == waiting


def test_private_address_is_refused_at_connect_time_whatever_dns_said_before(bench, receiver):
    port = receiver.place.rpartition(":")[2]
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]])
    settings = WebhookSettings(ports=(port,), timeout_s=1.0)
    destinations = Destinations.of(settings)
    destinations.resolve = lambda host, port: next(answers)
    url = f"https://rebind.example:{port}/hook"
    destinations.check(url)
    event = bench.errands
    bench.endpoints.create(TENANT, "rebinding", url, ("response.cancelled",))
    bench.ended()
    sender = Sender(destinations, 1.0)
    courier = Courier(event, sender)
    courier.answer()
    bench.pass_time(10)
    courier.answer()
    assert [a.detail for a in bench.only().attempts] == ["host 'rebind.example' is not on the public Internet"] * 2
    assert receiver.received == []


def test_nothing_is_delivered_before_the_end_is_committed(bench, receiver):
    bench.endpoint()
    states = []
    receiver.on_take = lambda got: states.append(bench.jobs.get(got.event["data"]["id"]).state)
    stop = threading.Event()

    def keep_delivering() -> None:
        while not stop.wait(0.001):
            bench.courier.answer()

    thread = threading.Thread(target=keep_delivering)
    thread.start()
    ids = {bench.ended() for _ in range(20)}
    eventually("all have arrived", lambda: len(receiver.received) == 20)
    stop.set()
    thread.join()
    assert {one.event["data"]["id"] for one in receiver.received} == ids
    assert all(state.terminal for state in states)
