"""Webhooks through the official client: deliveries that it unwraps, endpoints that it manages."""

import dataclasses
from collections.abc import Iterator

import openai
import pytest

from tests.clients.suite.bodies import asking, chat
from tests.clients.suite.lacking import needs
from tests.fixtures.eventually import eventually
from tests.fixtures.receiver import Received, Receiver, receiving

pytestmark = pytest.mark.acceptance

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as it:
        yield it


def first(receiver: Receiver) -> Received:
    return eventually("a delivery has come", lambda: receiver.received[:1])[0]


def test_delivery_of_a_responses_end_is_unwrapped(client: openai.OpenAI, receiver: Receiver) -> None:
    hook = {"url": receiver.url, "secret": SECRET}
    response = client.responses.create(**asking(), background=True, extra_body={"webhook": hook})
    came = first(receiver)
    event = client.webhooks.unwrap(came.body, came.headers, secret=SECRET)
    assert (event.object, event.type, event.data.id) == ("event", "response.incomplete", response.id)
    assert event.id == came.id


def test_delivery_that_was_touched_is_refused(client: openai.OpenAI, receiver: Receiver) -> None:
    hook = {"url": receiver.url, "secret": SECRET, "event_types": ["job.incomplete"]}
    client.chat.completions.create(**chat(), extra_body={"webhook": hook})
    came = first(receiver)
    assert came.event["type"] == "job.incomplete"
    touched = dataclasses.replace(came, body=came.body.replace(b"incomplete", b"completed"))
    for wrong, secret in ((touched, SECRET), (came, "whsec_" + "b3RoZXIh" * 6)):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(wrong.body, wrong.headers, secret=secret)


def test_registered_endpoint_is_told_of_a_background_response(client: openai.OpenAI, receiver: Receiver) -> None:
    needs(client, "webhooks.create")
    made = client.webhooks.create(name="ours", url=receiver.url, event_types=["response.incomplete"])
    assert made.signing_secret is not None
    response = client.responses.create(**asking(), background=True)
    came = first(receiver)
    event = client.webhooks.unwrap(came.body, came.headers, secret=made.signing_secret)
    assert (event.type, event.data.id) == ("response.incomplete", response.id)
    client.webhooks.delete(made.id)


def test_endpoint_is_listed_changed_rotated_tested_and_deleted(
    client: openai.OpenAI, stranger: openai.OpenAI, receiver: Receiver
) -> None:
    needs(client, "webhooks.create")
    made = client.webhooks.create(name="ours", url=receiver.url, event_types=["batch.completed"])
    assert made.id in [one.id for one in client.webhooks.list(limit=1)]
    changed = client.webhooks.update(made.id, name="theirs", event_types=["batch.completed", "batch.failed"])
    assert (changed.name, changed.event_types) == ("theirs", ["batch.completed", "batch.failed"])
    assert client.webhooks.retrieve(made.id) == changed
    rotated = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret not in (None, made.signing_secret)
    sent = client.webhooks.test(made.id, event_type="batch.completed")
    assert (sent.success, sent.status_code) == (True, 200)
    assert first(receiver).event["type"] == "batch.completed"
    with pytest.raises(openai.NotFoundError):
        stranger.webhooks.retrieve(made.id)
    assert client.webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_event_types_are_listed(client: openai.OpenAI) -> None:
    needs(client, "webhooks.event_types")
    listed = client.webhooks.event_types.list().data
    assert {"response.completed", "response.cancelled", "batch.expired", "job.failed"} <= set(listed)


def test_private_address_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**asking(), background=True, extra_body={"webhook": "https://10.0.0.1/hook"})
    assert (refused.value.param, refused.value.code) == ("webhook.url", "invalid_webhook_url")
