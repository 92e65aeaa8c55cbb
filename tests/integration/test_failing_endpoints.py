"""Endpoints to which nothing arrives: when they are disabled, and what becomes of their deliveries."""

import pytest

from jobs.job import Origin, Webhook
from jobs.webhooks.delivery import DeliveryFilter, DeliveryState
from jobs.webhooks.endpoint import EndpointChange
from tests.fixtures.delivery_bench import TENANT
from tests.fixtures.receiver import status

pytestmark = pytest.mark.integration


def test_endpoint_that_is_gone_is_disabled_and_its_deliveries_wait_until_it_is_enabled(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.script = [status(410)]
    delivery_bench.courier.answer()
    disabled = delivery_bench.endpoints.get(endpoint.id, TENANT)
    assert disabled.disabled_at is not None and disabled.disabled_because == "it answered 410 Gone"
    delivery_bench.ended()
    delivery_bench.pass_time(86400)
    delivery_bench.courier.answer()
    assert len(receiver.received) == 1
    assert {d.state for d in delivery_bench.deliveries.page(TENANT, DeliveryFilter())} == {DeliveryState.HELD}
    enabled = delivery_bench.endpoints.update(endpoint.id, TENANT, EndpointChange(enabled=True))
    assert enabled.disabled_at is None and enabled.disabled_because is None
    delivery_bench.courier.answer()
    assert len(receiver.received) == 3 and len(set(receiver.ids())) == 2


def test_gone_ends_a_jobs_own_webhook(delivery_bench, receiver):
    delivery_bench.ended(origin=Origin(webhook=Webhook(receiver.url)))
    receiver.script = [status(410)]
    delivery_bench.courier.answer()
    assert delivery_bench.only().state is DeliveryState.FAILED


def test_endpoint_that_fails_for_three_days_is_disabled_and_says_so(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    receiver.otherwise = status(500)
    delivery_bench.ended()
    delivery_bench.courier.answer()
    delivery_bench.pass_time(3 * 86400 - 60)
    delivery_bench.courier.answer()
    assert delivery_bench.endpoints.get(endpoint.id, TENANT).disabled_at is None
    delivery_bench.pass_time(86400)
    delivery_bench.courier.answer()
    disabled = delivery_bench.endpoints.get(endpoint.id, TENANT)
    assert disabled.disabled_because.startswith("nothing has arrived since ")
    assert disabled.disabled_because.endswith("answered 500")


def test_one_success_starts_the_three_days_anew(delivery_bench, receiver):
    endpoint = delivery_bench.endpoint()
    delivery_bench.ended()
    receiver.script = [status(500)]
    delivery_bench.courier.answer()
    assert delivery_bench.endpoints.get(endpoint.id, TENANT).failing_since is not None
    delivery_bench.turn()
    assert delivery_bench.endpoints.get(endpoint.id, TENANT).failing_since is None
