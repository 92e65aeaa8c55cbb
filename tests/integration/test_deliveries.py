"""Deliveries to a real receiver: what arrives, how it is signed, and who may be sent to."""

import threading

import pytest
from openai import OpenAI
from standardwebhooks.webhooks import Webhook as StandardWebhook

from jobs.job import Origin, Webhook
from jobs.webhooks.delivery import DeliveryState
from jobs.webhooks.destination import Destinations
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings
from jobs.webhooks.signature import new_secret
from tests.fixtures.delivery_bench import TENANT
from tests.fixtures.worker import eventually
from worker.deliveries.courier import Courier

pytestmark = pytest.mark.integration


def test_event_arrives_signed_and_thin_and_unwraps_with_the_official_clients(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    job_id = delivery_bench.ended()
    delivery_bench.courier.answer()
    (got,) = receiver.received
    assert got.headers["content-type"] == "application/json" and got.path == "/hook"
    assert StandardWebhook(endpoint.secret).verify(got.body, got.headers) == got.event
    unwrapped = OpenAI(api_key="x").webhooks.unwrap(got.body, got.headers, secret=endpoint.secret)
    assert (type(unwrapped).__name__, unwrapped.type) == ("ResponseCancelledWebhookEvent", "response.cancelled")
    assert (unwrapped.id, unwrapped.data.id, unwrapped.object) == (got.id, job_id, "event")
    delivery = delivery_bench.only()
    assert delivery.state is DeliveryState.DELIVERED and delivery.event.id == got.id
    assert [(a.number, a.status_code) for a in delivery.attempts] == [(1, 200)] and delivery.attempts[0].ended_at


def test_jobs_own_webhook_is_signed_with_its_secret_or_the_tenants(delivery_bench, receiver):
    own = new_secret()
    delivery_bench.ended(origin=Origin(webhook=Webhook(receiver.url, (), own)))
    delivery_bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    delivery_bench.courier.answer()
    first, second = receiver.received
    StandardWebhook(own).verify(first.body, first.headers)
    StandardWebhook(delivery_bench.endpoints.secret(TENANT).secret).verify(second.body, second.headers)


def test_rotated_secret_signs_beside_the_old_one_for_24_hours(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    rotated = delivery_bench.endpoints.rotate(endpoint.id, TENANT, overlap=True)
    delivery_bench.ended()
    delivery_bench.courier.answer()
    for secret in (endpoint.secret, rotated.secret):
        StandardWebhook(secret).verify(receiver.received[0].body, receiver.received[0].headers)
    delivery_bench.pass_time(24 * 3600)
    delivery_bench.ended()
    delivery_bench.courier.answer()
    assert receiver.received[1].headers["webhook-signature"].count("v1,") == 1
    StandardWebhook(rotated.secret).verify(receiver.received[1].body, receiver.received[1].headers)
    delivery_bench.endpoints.rotate(endpoint.id, TENANT, overlap=False)
    delivery_bench.ended()
    delivery_bench.courier.answer()
    assert receiver.received[2].headers["webhook-signature"].count("v1,") == 1


def test_private_address_is_refused_at_connect_time_whatever_dns_said_before(delivery_bench, receiver):
    port = receiver.place.rpartition(":")[2]
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"]])
    settings = WebhookSettings(ports=(port,), timeout_s=1.0)
    destinations = Destinations.of(settings)
    destinations.resolve = lambda host, port: next(answers)
    url = f"https://rebind.example:{port}/hook"
    destinations.check(url)
    event = delivery_bench.errands
    delivery_bench.endpoints.create(TENANT, "rebinding", url, ("response.cancelled",))
    delivery_bench.ended()
    sender = Sender(destinations, 1.0)
    courier = Courier(event, sender)
    courier.answer()
    delivery_bench.pass_time(10)
    courier.answer()
    assert [a.detail for a in delivery_bench.only().attempts] == [
        "host 'rebind.example' is not on the public Internet"
    ] * 2
    assert receiver.received == []


def test_nothing_is_delivered_before_the_end_is_committed(delivery_bench, receiver):
    delivery_bench.endpoint()
    states = []
    receiver.on_take = lambda got: states.append(delivery_bench.jobs.get(got.event["data"]["id"]).state)
    stop = threading.Event()

    def keep_delivering() -> None:
        while not stop.wait(0.001):
            delivery_bench.courier.answer()

    thread = threading.Thread(target=keep_delivering)
    thread.start()
    ids = {delivery_bench.ended() for _ in range(20)}
    eventually("all have arrived", lambda: len(receiver.received) == 20)
    stop.set()
    thread.join()
    assert {one.event["data"]["id"] for one in receiver.received} == ids
    assert all(state.terminal for state in states)
