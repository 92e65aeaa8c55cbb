"""The routes of webhooks: endpoints, their secrets, deliveries, replays, and the field of a job."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from standardwebhooks.webhooks import Webhook as StandardWebhook

from cli.services import Services
from jobs.database import Database
from jobs.webhooks.destination import Destinations
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.event import EVENT_TYPES
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings
from jobs.webhooks.signature import new_secret
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.receiver import Receiver, receiving, silence, status
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for
from worker.deliveries.courier import Courier

pytestmark = pytest.mark.integration

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(autouse=True)
def forgetful(receiver: Receiver) -> None:
    receiver.received.clear()
    receiver.script.clear()


@pytest.fixture(scope="module")
def webhooks(receiver: Receiver) -> WebhookSettings:
    return WebhookSettings(allowed_hosts=(receiver.place,), timeout_s=1.0, max_endpoints=10)


@pytest.fixture(scope="module")
def api(services: Services, tmp_path_factory: pytest.TempPathFactory, webhooks: WebhookSettings) -> Iterator[ServedApi]:
    folder = tmp_path_factory.mktemp("api")
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), folder), webhooks) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def courier(api: ServedApi, webhooks: WebhookSettings) -> Iterator[Courier]:
    database = Database(api.services.database_url)
    yield Courier(PostgresErrands(database, webhooks), Sender(Destinations.of(webhooks), webhooks.timeout_s))
    database.close()


@pytest.fixture
def client(api: ServedApi) -> Iterator[OpenAI]:
    with OpenAI(api_key="any", base_url=f"{api.url}/v1", max_retries=0) as made:
        yield made
        for endpoint in made.webhooks.list():
            made.webhooks.delete(endpoint.id)


def cancelled(http: httpx2.Client, **fields: Any) -> str:
    answer = http.post("/v1/jobs", json=BODY | fields)
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["id"]
    assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return job_id


def make(http: httpx2.Client, receiver: Receiver, *types: str, **headers: str) -> dict[str, Any]:
    body = {"name": "mine", "url": receiver.url, "event_types": types or ["job.cancelled"]}
    answer = http.post("/v1/webhook_endpoints", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_official_client_manages_endpoints(client: OpenAI, receiver: Receiver) -> None:
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=["response.completed", "batch.failed"])
    assert (made.object, made.name, made.url) == ("webhook_endpoint", "mine", receiver.url)
    assert made.event_types == ["response.completed", "batch.failed"]
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint == f"whsec_…{made.signing_secret[-4:]}"

    read = client.webhooks.retrieve(made.id)
    assert (read.id, read.created_at, read.updated_at) == (made.id, made.created_at, made.created_at)
    changed = client.webhooks.update(made.id, name="other", event_types=["response.failed"])
    assert (changed.name, changed.event_types, changed.url) == ("other", ["response.failed"], receiver.url)
    rotated = client.webhooks.rotate_secret(made.id)
    assert rotated.signing_secret != made.signing_secret
    assert client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True).signing_secret
    assert client.webhooks.event_types.list().data == list(EVENT_TYPES)
    assert client.webhooks.delete(made.id).deleted
    with pytest.raises(NotFoundError):
        client.webhooks.retrieve(made.id)


def test_endpoints_are_listed_newest_first_in_pages_without_their_secrets(
    client: OpenAI, http: httpx2.Client, receiver: Receiver
) -> None:
    ids = [make(http, receiver)["id"] for _ in range(3)]
    page = client.webhooks.list(limit=2)
    assert [endpoint.id for endpoint in page.data] == ids[:0:-1] and page.has_next_page()
    assert [endpoint.id for endpoint in page] == ids[::-1]
    assert 'signing_secret"' not in http.get("/v1/webhook_endpoints").text


def test_sample_event_is_sent_and_its_answer_told(client: OpenAI, http: httpx2.Client, receiver: Receiver) -> None:
    made = make(http, receiver)
    receiver.script = [status(418)]
    result = client.webhooks.test(made["id"], event_type="response.completed")
    assert (result.status_code, result.success, result.webhook_endpoint_id) == (418, True, made["id"])
    (got,) = receiver.received
    event = client.webhooks.unwrap(got.body, got.headers, secret=made["signing_secret"])
    assert (event.type, event.data.id) == ("response.completed", "resp_test")
    assert http.get(f"/v1/webhook_endpoints/{made['id']}/deliveries").json()["data"] == []
    receiver.script = [silence(2.0)]
    with pytest.raises(BadRequestError, match="gave no answer"):
        client.webhooks.test(made["id"], event_type="batch.failed")


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"url": "http://public.example/"}, "url", "is not https"),
        ({"url": "https://127.0.0.1/"}, "url", "not on the public Internet"),
        ({"url": "https://[::1]/"}, "url", "not on the public Internet"),
        ({"url": "https://169.254.169.254/latest"}, "url", "not on the public Internet"),
        ({"url": "https://2130706433/"}, "url", ""),
        ({"url": "https://localhost/"}, "url", "not on the public Internet"),
        ({"url": "https://93.184.216.34:22/"}, "url", "port 22"),
        ({"url": "https://me:pw@public.example/"}, "url", "user name"),
        ({"url": "ftp://public.example/"}, "url", "is not https://host/"),
        ({"url": "nowhere"}, "url", "is not https://host/"),
        ({"url": "https://public.example/" + "a" * 3000}, "url", "2048"),
        ({"event_types": ["eval.run.failed"]}, "event_types", "there is no event 'eval.run.failed'"),
        ({"event_types": []}, "event_types", ""),
        ({"name": ""}, "name", ""),
        ({"name": 3}, "name", ""),
        ({"secret": "mine"}, "secret", "Unrecognized"),
    ],
)
def test_wrong_endpoint_is_refused_by_name(
    http: httpx2.Client, receiver: Receiver, fields: dict[str, Any], param: str, said: str
) -> None:
    body = {"name": "mine", "url": receiver.url, "event_types": ["job.failed"]} | fields
    answer = http.post("/v1/webhook_endpoints", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param) and said in error["message"], error


def test_change_to_a_private_address_is_refused(client: OpenAI, http: httpx2.Client, receiver: Receiver) -> None:
    made = make(http, receiver)
    with pytest.raises(BadRequestError, match="public Internet"):
        client.webhooks.update(made["id"], url="https://10.0.0.1/")


def test_number_of_endpoints_is_bounded(client: OpenAI, http: httpx2.Client, receiver: Receiver) -> None:
    for _ in range(10):
        make(http, receiver)
    with pytest.raises(BadRequestError, match="10 webhook endpoints already"):
        client.webhooks.create(name="x", url=receiver.url, event_types=["batch.failed"])


def test_same_request_with_one_idempotency_key_makes_one_endpoint(
    client: OpenAI, http: httpx2.Client, receiver: Receiver
) -> None:
    first = make(http, receiver, **{"idempotency-key": "once"})
    assert make(http, receiver, **{"idempotency-key": "once"}) == first
    assert len(client.webhooks.list().data) == 1
    other = {"name": "other", "url": receiver.url, "event_types": ["job.failed"]}
    answer = http.post("/v1/webhook_endpoints", json=other, headers={"idempotency-key": "once"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


def test_deliveries_are_shown_with_their_tries_and_sent_again_on_request(
    client: OpenAI, http: httpx2.Client, receiver: Receiver, courier: Courier
) -> None:
    endpoint_id = make(http, receiver)["id"]
    job_id = cancelled(http)
    deliveries = f"/v1/webhook_endpoints/{endpoint_id}/deliveries"
    (waiting,) = http.get(deliveries).json()["data"]
    assert (waiting["status"], waiting["attempts"], waiting["object"]) == ("pending", [], "webhook_delivery")
    assert waiting["next_attempt_at"] and waiting["webhook_endpoint_id"] == endpoint_id and waiting["url"] is None
    receiver.script = [status(200)]
    courier.answer()
    (got,) = receiver.received
    (shown,) = http.get(deliveries, params={"status": "delivered", "event_type": "job.cancelled"}).json()["data"]
    assert shown["event"] == got.event and shown["event"]["id"] == got.id
    assert shown["event"]["data"] == {"id": job_id} and shown["next_attempt_at"] is None
    (attempt,) = shown["attempts"]
    assert (attempt["number"], attempt["status_code"], attempt["detail"]) == (1, 200, "")
    assert http.get(f"/v1/webhook_deliveries/{shown['id']}").json() == shown
    assert http.get("/v1/webhook_deliveries", params={"subject": job_id}).json()["data"] == [shown]
    assert http.get(deliveries, params={"status": "failed"}).json()["data"] == []

    assert http.post(f"/v1/webhook_deliveries/{shown['id']}/replay").json()["status"] == "pending"
    courier.answer()
    answer = http.post(f"/v1/webhook_endpoints/{endpoint_id}/replay", json={"since": shown["created_at"]})
    assert answer.json()["deliveries"] == 1
    courier.answer()
    assert receiver.ids() == [got.id] * 3
    later = http.post(f"/v1/webhook_endpoints/{endpoint_id}/replay", json={"since": "2199-01-01T00:00:00+00:00"})
    assert later.json()["deliveries"] == 0


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", -1, 1e30, None, [1]])
def test_wrong_instant_of_a_replay_is_refused(
    client: OpenAI, http: httpx2.Client, receiver: Receiver, since: Any
) -> None:
    endpoint_id = make(http, receiver)["id"]
    answer = http.post(f"/v1/webhook_endpoints/{endpoint_id}/replay", json={"since": since})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")


def test_disabled_endpoint_says_why_and_is_enabled_again(
    client: OpenAI, http: httpx2.Client, receiver: Receiver, courier: Courier
) -> None:
    made = make(http, receiver)
    assert (made["status"], made["disabled_reason"]) == ("enabled", None)
    cancelled(http)
    receiver.script = [status(410)]
    courier.answer()
    path = f"/v1/webhook_endpoints/{made['id']}"
    shown = http.get(path).json()
    assert (shown["status"], shown["disabled_reason"]) == ("disabled", "it answered 410 Gone")
    refused = http.post(f"{path}/replay", json={"since": 0})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "webhook_endpoint_disabled")
    assert http.post(path, json={"status": "enabled"}).json()["status"] == "enabled"
    courier.answer()
    assert len(receiver.received) == 2 and len(set(receiver.ids())) == 1


@pytest.mark.parametrize("webhook", ["url", "object"])
def test_webhook_of_a_job_is_called_at_its_end(
    http: httpx2.Client, receiver: Receiver, courier: Courier, webhook: str
) -> None:
    secret = new_secret()
    by_object = {"url": receiver.url, "event_types": ["job.cancelled", "job.cancelled"], "secret": secret}
    job_id = cancelled(http, webhook=receiver.url if webhook == "url" else by_object)
    courier.answer()
    (got,) = receiver.received
    assert got.event["type"] == ("response.cancelled" if webhook == "url" else "job.cancelled")
    assert got.event["data"] == {"id": job_id}
    if webhook == "url":
        secret = http.post("/v1/webhook_secret/rotate").json()["signing_secret"]
        (shown,) = http.get("/v1/webhook_deliveries", params={"subject": job_id}).json()["data"]
        assert shown["url"] == receiver.url
        http.post(f"/v1/webhook_deliveries/{shown['id']}/replay")
        courier.answer()
        got = receiver.received[1]
    StandardWebhook(secret).verify(got.body, got.headers)


def test_job_shows_its_own_webhook_and_never_what_signs(http: httpx2.Client, receiver: Receiver) -> None:
    secret = new_secret()
    usual = {"url": receiver.url, "event_types": list(EVENT_TYPES[:4])}
    named = {"url": receiver.url, "event_types": ["job.cancelled"]}
    for asked, shown in (
        (receiver.url, usual),
        ({"url": receiver.url, "secret": secret}, usual),
        (named | {"secret": secret}, named),
        (None, None),
    ):
        submitted = http.post("/v1/jobs", json=BODY | {"webhook": asked})
        job_id = submitted.json()["id"]
        read, listed = http.get(f"/v1/jobs/{job_id}"), http.get("/v1/jobs", params={"limit": 1})
        ended = http.post(f"/v1/jobs/{job_id}/cancel")
        log = http.get(f"/v1/jobs/{job_id}/events")
        assert submitted.json()["webhook"] == read.json()["webhook"] == ended.json()["webhook"] == shown
        assert listed.json()["data"][0]["webhook"] == shown
        for answer in (submitted, read, listed, ended, log):
            assert secret not in answer.text and "secret" not in answer.text


def test_tenants_secret_is_shown_once(http: httpx2.Client) -> None:
    new = http.post("/v1/webhook_secret/rotate", json={"keep_old_secret_active_for_24_hours": True}).json()
    assert new["signing_secret"].startswith("whsec_")
    shown = http.get("/v1/webhook_secret").json()
    assert "signing_secret" not in shown and shown["signing_secret_hint"] == new["signing_secret_hint"]


@pytest.mark.parametrize(
    ("webhook", "param"),
    [
        ("http://public.example/", "webhook.url"),
        ("https://10.0.0.1/", "webhook.url"),
        ({"url": "https://127.0.0.1/"}, "webhook.url"),
        ({}, "webhook.url"),
        (3, "webhook"),
        ({"url": "ok", "event_types": ["batch.failed"]}, "webhook.event_types"),
        ({"url": "ok", "event_types": []}, "webhook.event_types"),
        ({"url": "ok", "secret": "whsec_AAAA"}, "webhook.secret"),
        ({"url": "ok", "secret": "plain"}, "webhook.secret"),
        ({"url": "ok", "method": "GET"}, "webhook.method"),
    ],
)
@pytest.mark.parametrize("door", ["/v1/jobs", "/v1/chat/completions", "/v1/responses"])
def test_wrong_webhook_of_a_job_is_refused_by_name(
    http: httpx2.Client, receiver: Receiver, webhook: Any, param: str, door: str
) -> None:
    if isinstance(webhook, dict) and webhook.get("url") == "ok":
        webhook = webhook | {"url": receiver.url}
    body = {"model": MODEL, "input": "Hi"} if door == "/v1/responses" else BODY
    answer = http.post(door, json=body | {"webhook": webhook})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
    assert "whsec_AAAA" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/webhook_endpoints/{}"),
        ("POST", "/v1/webhook_endpoints/{}"),
        ("DELETE", "/v1/webhook_endpoints/{}"),
        ("POST", "/v1/webhook_endpoints/{}/rotate_secret"),
        ("GET", "/v1/webhook_endpoints/{}/deliveries"),
        ("GET", "/v1/webhook_endpoints?after={}"),
        ("GET", "/v1/webhook_deliveries/{}"),
        ("POST", "/v1/webhook_deliveries/{}/replay"),
        ("GET", "/v1/webhook_deliveries?after={}"),
    ],
)
@pytest.mark.parametrize("strange", ["we_none", "we_%F0%9F%8E%89", "a" * 200])
def test_unknown_id_is_404(http: httpx2.Client, method: str, path: str, strange: str) -> None:
    answer = http.request(method, path.format(strange), **({"json": {}} if method == "POST" else {}))
    assert (answer.status_code, answer.json()["error"]["code"][:7]) == (404, "webhook")
