"""`vlmq webhooks` in this process, against a served application and a real receiver."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2
import pytest
from standardwebhooks.webhooks import Webhook as StandardWebhook

from cli.main import main
from cli.services import Services
from jobs.database import Database
from jobs.webhooks.destination import Destinations
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.receiver import Receiver, receiving, status
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for
from worker.deliveries.courier import Courier

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Vlmq = Callable[..., Said]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def webhooks(receiver: Receiver) -> WebhookSettings:
    return WebhookSettings(allowed_hosts=(receiver.place,), timeout_s=1.0)


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
def vlmq(api: ServedApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vlmq:
    monkeypatch.setenv("VLMQ_CLI_URL", api.url)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["vlmq", "webhooks", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def endpoint(vlmq: Vlmq, receiver: Receiver) -> Iterator[tuple[str, str]]:
    """Its id and its secret."""
    receiver.received.clear()
    made = vlmq("endpoints", "create", receiver.url, "--name", "mine", "-e", "job.cancelled")
    endpoint_id = made.err.split(";")[0].strip()
    yield endpoint_id, made.out.strip()
    vlmq("endpoints", "delete", endpoint_id)


def cancelled(http: httpx2.Client) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    job_id: str = http.post("/v1/jobs", json=body).json()["id"]
    assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    return job_id


def delivery_of(vlmq: Vlmq, job_id: str) -> str:
    line = vlmq("deliveries", "list", "--subject", job_id).out.splitlines()[1]
    return line.split()[0]


def test_endpoint_is_created_with_its_secret_listed_without_it_and_deleted(
    vlmq: Vlmq, endpoint: tuple[str, str], receiver: Receiver
) -> None:
    endpoint_id, secret = endpoint
    listed = vlmq("endpoints", "list").out
    assert all(word in listed for word in (endpoint_id, "mine", receiver.url, "enabled", "job.cancelled"))
    assert secret.startswith("whsec_") and secret not in listed
    assert vlmq("endpoints", "delete", endpoint_id).out == f"{endpoint_id} is deleted\n"
    assert endpoint_id not in vlmq("endpoints", "list").out


def test_endpoint_for_an_unknown_event_is_refused_with_the_servers_words(vlmq: Vlmq, receiver: Receiver) -> None:
    said = vlmq("endpoints", "create", receiver.url, "-e", "job.begun")
    assert said.code == 1
    assert "job.begun" in said.err and "event_types" in said.err and "Traceback" not in said.err


def test_delivery_is_listed_shown_and_replayed_under_its_id(
    vlmq: Vlmq, endpoint: tuple[str, str], http: httpx2.Client, courier: Courier, receiver: Receiver
) -> None:
    job_id = cancelled(http)
    courier.answer()
    delivery = delivery_of(vlmq, job_id)
    shown = vlmq("deliveries", "show", delivery).out
    assert "delivered" in shown and f"job.cancelled of {job_id}" in shown
    assert re.search(r"try 1 +\S+ \S+  answered 200", shown)
    assert "pending" in vlmq("deliveries", "replay", delivery).out
    courier.answer()
    first, second = receiver.received
    assert first.id == second.id
    StandardWebhook(endpoint[1]).verify(second.body, second.headers)
    assert vlmq("deliveries", "list", "--endpoint", endpoint[0], "--status", "failed").out == "no deliveries\n"


def test_replay_since_counts_what_is_due_again(
    vlmq: Vlmq, endpoint: tuple[str, str], http: httpx2.Client, courier: Courier, receiver: Receiver
) -> None:
    cancelled(http)
    courier.answer()
    assert vlmq("deliveries", "replay-since", endpoint[0], "2020-01-01").out == "1 deliveries are due again\n"
    assert vlmq("deliveries", "replay-since", endpoint[0], "2999-01-01T00:00Z").out == "0 deliveries are due again\n"
    said = vlmq("deliveries", "replay-since", endpoint[0], "yesterday")
    assert said.code == 2 and "'yesterday' is no instant" in said.err
    courier.answer()
    assert len(receiver.received) == 2


def test_endpoint_that_was_switched_off_says_why_and_is_enabled(
    vlmq: Vlmq, endpoint: tuple[str, str], http: httpx2.Client, courier: Courier, receiver: Receiver
) -> None:
    receiver.script = [status(410)]
    cancelled(http)
    courier.answer()
    assert "disabled: it answered 410 Gone" in vlmq("endpoints", "list").out
    assert vlmq("endpoints", "enable", endpoint[0]).out == f"{endpoint[0]} is enabled\n"
    courier.answer()
    assert len(receiver.received) == 2


def test_secret_is_printed_by_its_rotation_alone(vlmq: Vlmq) -> None:
    rotated = vlmq("secret", "rotate", "--keep-old")
    assert rotated.out.startswith("whsec_") and "24 h more" in rotated.err
    shown = vlmq("secret", "show").out
    assert rotated.out.strip() not in shown and rotated.out.strip()[-4:] in shown


def test_filters_that_exclude_each_other_are_refused(vlmq: Vlmq) -> None:
    said = vlmq("deliveries", "list", "--endpoint", "we_1", "--subject", "job_1")
    assert said.code == 2 and "exclude each other" in said.err
