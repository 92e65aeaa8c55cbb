"""Who may make a try of a delivery, and whose word about it counts."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jobs.job import JobKind, Origin, Webhook
from jobs.webhooks.delivery import Answer, DeliveryFilter, DeliveryState
from tests.fixtures.delivery_bench import TENANT, DeliveryBench
from tests.fixtures.receiver import receiving
from tests.fixtures.worker import eventually

pytestmark = pytest.mark.integration


def test_many_deliverers_at_once_make_each_try_once(database_url, receiver):
    # Patient: a receiver that is slow for once would be tried twice, and rightly.
    bench = DeliveryBench(database_url, receiver, timeout_s=20.0)
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


def test_try_of_a_deliverer_that_died_is_made_again_and_its_late_word_is_not_written(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    lost = delivery_bench.errands.claim()
    assert delivery_bench.errands.claim() is None and delivery_bench.errands.waiting(10) == []
    delivery_bench.pass_time(delivery_bench.settings.lease_s + 1)
    again = delivery_bench.errands.claim()
    assert (again.delivery_id, again.attempt, again.event) == (lost.delivery_id, 2, lost.event)
    answer = delivery_bench.sender.send(lost.url, lost.event, lost.keys)
    assert delivery_bench.errands.settle(lost, answer) is None
    assert delivery_bench.only().state is DeliveryState.PENDING
    assert delivery_bench.errands.settle(again, answer) is DeliveryState.DELIVERED
    assert delivery_bench.errands.settle(again, answer) is None


def test_lease_from_before_the_clock_was_set_back_holds_nothing_up(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    lost = delivery_bench.errands.claim()
    delivery_bench.pass_time(-3600)
    with psycopg.connect(delivery_bench.url) as connection:
        connection.execute("UPDATE webhook_deliveries SET next_at = now()")
    assert delivery_bench.errands.waiting(10) == [lost.delivery_id]
    again = delivery_bench.errands.claim()
    assert (again.delivery_id, again.attempt) == (lost.delivery_id, 2)
    assert delivery_bench.errands.claim() is None


def test_silent_receiver_leaves_room_for_the_others(database_url, receiver):
    bench = DeliveryBench(database_url, receiver, per_target=2)
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


def test_job_may_be_deleted_just_while_its_webhook_is_written_down(delivery_bench, receiver):
    job_id = delivery_bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    errand = delivery_bench.errands.claim()
    assert errand is not None
    with ThreadPoolExecutor(2) as pool, psycopg.connect(delivery_bench.url) as connection:
        connection.execute("SELECT FROM webhook_deliveries FOR UPDATE")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        deleting = pool.submit(delivery_bench.jobs.delete, job_id, TENANT)
        eventually("the owner waits", lambda: connection.execute(waiting).fetchone()[0] >= 1)
        settling = pool.submit(delivery_bench.errands.settle, errand, Answer(200))
        eventually("the deliverer waits too", lambda: connection.execute(waiting).fetchone()[0] >= 2)
        connection.commit()
        deleting.result()
        assert settling.result() is None
        assert connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() == (0,)


def test_removed_endpoint_takes_its_deliveries_along_even_under_way(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    delivery_bench.ended()
    errand = delivery_bench.errands.claim()
    delivery_bench.endpoints.delete(endpoint.id, TENANT)
    answer = delivery_bench.sender.send(errand.url, errand.event, errand.keys)
    assert delivery_bench.errands.settle(errand, answer) is None
    assert delivery_bench.deliveries.page(TENANT, DeliveryFilter()) == []
