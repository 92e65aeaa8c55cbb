"""The tries of a delivery to a real receiver that fails: how many, and how long between them."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from jobs.webhooks.delivery import DeliveryState
from jobs.webhooks.settings import SCHEDULE_S
from tests.fixtures.delivery_bench import DeliveryBench
from tests.fixtures.receiver import cut_short, endless, silence, status

pytestmark = pytest.mark.integration


def test_failing_receiver_is_tried_on_schedule_with_one_id_and_then_no_more(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.otherwise = status(500)
    delivery_bench.courier.answer()
    pauses = []
    while delivery_bench.only().state is DeliveryState.PENDING:
        pauses.append(round(delivery_bench.pause_s()))
        delivery_bench.turn()
    assert pauses == [int(pause) for pause in SCHEDULE_S[1:]]
    assert len(receiver.received) == 10 and len(set(receiver.ids())) == 1
    assert len({one.body for one in receiver.received}) == 1
    delivery = delivery_bench.only()
    assert delivery.state is DeliveryState.FAILED
    assert [a.detail for a in delivery.attempts] == ["answered 500"] * 10


def test_pauses_vary_within_the_jitter(database_url, receiver):
    bench = DeliveryBench(database_url, receiver, schedule_s=(0.0, 1000.0), jitter=0.1)
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


def test_every_kind_of_failure_is_tried_again_until_it_arrives(delivery_bench, receiver):
    delivery_bench.endpoint()
    job_id = delivery_bench.ended()
    private = status(301, location="http://127.0.0.1:9/")
    receiver.script = [silence(3.0), *[status(500)] * 5, private, cut_short]
    delivery_bench.courier.answer()
    for _ in range(7):
        delivery_bench.turn()
    receiver.stop()
    delivery_bench.turn()
    assert delivery_bench.only().state is DeliveryState.PENDING
    receiver.start()
    with psycopg.connect(delivery_bench.url) as connection:
        connection.execute("UPDATE webhook_deliveries SET next_at = now()")
    delivery_bench.courier.answer()
    delivery = delivery_bench.only()
    assert delivery.state is DeliveryState.DELIVERED and delivery.event.subject == job_id
    assert set(receiver.ids()) == {delivery.event.id} and len(receiver.received) == 9
    codes = [attempt.status_code for attempt in delivery.attempts]
    assert codes == [None, 500, 500, 500, 500, 500, 301, 200, None, 200]
    details = [attempt.detail for attempt in delivery.attempts]
    assert details[0].startswith("no answer in time") and details[6].endswith("redirects are not followed")
    assert details[7].startswith("answered 200 and broke off") and details[8].startswith("cannot be reached")


def test_answer_without_end_is_read_to_a_bound(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.script = [endless]
    delivery_bench.courier.answer()
    assert delivery_bench.only().state is DeliveryState.DELIVERED


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_receiver_says_when_it_is_ready_again(delivery_bench, receiver, code):
    delivery_bench.endpoint()
    delivery_bench.ended()
    later = datetime.now(UTC) + timedelta(seconds=3000)
    receiver.script = [
        status(code, retry_after="1000"),
        status(code, retry_after=later.strftime("%a, %d %b %Y %H:%M:%S GMT")),
        status(code, retry_after="1"),
        status(code, retry_after="999999999"),
        status(code, retry_after="soon"),
    ]
    pauses = []
    delivery_bench.courier.answer()
    for _ in range(4):
        pauses.append(round(delivery_bench.pause_s(), -2))
        delivery_bench.turn()
    assert pauses == [1000, 3000, 1800, 86400]
    assert round(delivery_bench.pause_s()) == 18000


def test_retry_after_beyond_any_calendar_is_no_reason_to_drop_the_answer(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.script = [status(503, retry_after=f"Mon, 01 Jan {9**30} 00:00:00 GMT")]
    delivery_bench.courier.answer()
    assert round(delivery_bench.pause_s()) == 5
    assert [attempt.status_code for attempt in delivery_bench.only().attempts] == [503]


def test_retry_after_of_other_answers_changes_nothing(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.script = [status(500, retry_after="1000")]
    delivery_bench.courier.answer()
    assert round(delivery_bench.pause_s()) == 5
