"""The log of deliveries: what is in it can be sent again, until it is forgotten."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled
from jobs.webhooks.delivery import DeliveryState
from jobs.webhooks.endpoint import EndpointChange
from tests.fixtures.delivery_bench import TENANT
from tests.fixtures.receiver import status

pytestmark = pytest.mark.integration


def test_replay_sends_the_same_event_again(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    delivery_bench.courier.answer()
    replayed = delivery_bench.deliveries.replay(delivery_bench.only().id, TENANT)
    assert replayed.state is DeliveryState.PENDING
    delivery_bench.courier.answer()
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert delivery_bench.only().state is DeliveryState.DELIVERED and len(delivery_bench.only().attempts) == 2
    with pytest.raises(WebhookDeliveryNotFound):
        delivery_bench.deliveries.replay(delivery_bench.only().id, "other")


def test_replay_since_an_instant_sends_what_happened_then_and_later(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    delivery_bench.ended()
    delivery_bench.age(3600)
    recent = {delivery_bench.ended(), delivery_bench.ended()}
    delivery_bench.courier.answer()
    since = datetime.now(UTC) - timedelta(minutes=30)
    assert delivery_bench.deliveries.replay_since(endpoint.id, TENANT, since) == 2
    assert delivery_bench.deliveries.replay_since(endpoint.id, TENANT, since) == 0
    delivery_bench.courier.answer()
    assert {one.event["data"]["id"] for one in receiver.received[3:]} == recent
    delivery_bench.endpoints.update(endpoint.id, TENANT, EndpointChange(enabled=False))
    with pytest.raises(WebhookEndpointDisabled):
        delivery_bench.deliveries.replay_since(endpoint.id, TENANT, since)


def test_old_deliveries_are_forgotten_but_not_those_that_wait(delivery_bench, receiver):
    delivery_bench.endpoint()
    delivery_bench.ended()
    delivery_bench.courier.answer()
    receiver.script = [status(500)]
    waiting = delivery_bench.ended()
    delivery_bench.courier.answer()
    delivery_bench.age(1000)
    assert delivery_bench.deliveries.expire(2000) == 0
    assert delivery_bench.deliveries.expire(500) == 1
    assert delivery_bench.only().event.subject == waiting
