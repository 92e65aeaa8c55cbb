"""What belongs to one tenant does not exist for another: every route with an id, every list, every id in a body."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.services import Services
from jobs.database import Database
from jobs.job import JobState
from jobs.keys import PostgresApiKeys
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

PATHS: dict[str, Any] = json.loads((Path(__file__).parent / "openapi.json").read_text())["paths"]
METHODS = ("get", "post", "put", "patch", "delete")
OPERATIONS = [(method, path) for path, item in PATHS.items() for method in METHODS if method in item]
SHARED = {"/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/{model}", "/v1/webhook_event_types"}
"""Not about anybody's things."""
OWN = {"/v1/webhook_secret"}
"""Has no id: everybody sees what is their own."""

WITH_ID = [(method, path) for method, path in OPERATIONS if "{" in path and path not in SHARED]
LISTS = [path for method, path in OPERATIONS if method == "get" and "{" not in path and path not in SHARED | OWN]

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions/{completion_id}": {"metadata": {"a": "b"}},
    "/v1/webhook_endpoints/{endpoint_id}": {"name": "mine now"},
    "/v1/webhook_endpoints/{endpoint_id}/test": {"event_type": "response.completed"},
    "/v1/webhook_endpoints/{endpoint_id}/replay": {"since": 0},
}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
HOOK = {"name": "hook", "url": "https://93.184.215.14/hook", "event_types": ["job.cancelled"]}


@pytest.fixture(scope="module")
def api(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder = tmp_path_factory.mktemp("tenancy")
    with fresh_database(services) as database_url:
        settings = settings_for(database_url, services.redis_url, fresh_prefix(), folder)
        with served(settings.model_copy(update={"spool_folder": str(folder)})) as running:
            yield running


@pytest.fixture(scope="module")
def keys(api: ServedApi) -> Iterator[PostgresApiKeys]:
    database = Database(api.services.database_url, pool_size=1)
    yield PostgresApiKeys(database)
    database.close()


def client_of(api: ServedApi, keys: PostgresApiKeys, tenant: str) -> httpx2.Client:
    return api.client(headers={"authorization": f"Bearer {keys.create(tenant, 'test')[1]}"})


@pytest.fixture(scope="module")
def owner(api: ServedApi, keys: PostgresApiKeys) -> Iterator[httpx2.Client]:
    with client_of(api, keys, "owner") as http:
        yield http


@pytest.fixture(scope="module")
def stranger(api: ServedApi, keys: PostgresApiKeys) -> Iterator[httpx2.Client]:
    with client_of(api, keys, "stranger") as http:
        yield http


def made(http: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    answer = http.post(path, json=body)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


def upload(http: httpx2.Client, purpose: str) -> str:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    files = {"file": ("lines.jsonl", json.dumps(line).encode())}
    answer = http.post("/v1/files", data={"purpose": purpose}, files=files)
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def ids(api: ServedApi, owner: httpx2.Client) -> dict[str, str]:
    """One of everything, by the name that its id has in the routes' paths."""
    found: dict[str, str] = {}
    if "/v1/webhook_endpoints" in PATHS:
        found["endpoint_id"] = made(owner, "/v1/webhook_endpoints", HOOK)
        ended = made(owner, "/v1/jobs", CHAT)
        owner.post(f"/v1/jobs/{ended}/cancel")
        found["delivery_id"] = owner.get("/v1/webhook_deliveries").json()["data"][0]["id"]
    if "/v1/chat/completions/{completion_id}" in PATHS:
        with api.worker.serving():
            found["completion_id"] = made(owner, "/v1/chat/completions", CHAT | {"store": True})
    found["file_id"] = upload(owner, "user_data")
    if "/v1/batches" in PATHS:
        batch = {"input_file_id": upload(owner, "batch"), "endpoint": "/v1/chat/completions"}
        found["batch_id"] = made(owner, "/v1/batches", batch | {"completion_window": "24h"})
    with api.worker.serving():
        # Ended, so that its owner could delete it and go on from it.
        found["response_id"] = made(owner, "/v1/responses", {"model": MODEL, "input": "Hello"})
    found["job_id"] = made(owner, "/v1/jobs", CHAT)
    return found


def ask(http: httpx2.Client, method: str, path: str, ids: dict[str, str]) -> httpx2.Response:
    body = BODIES.get(path, {}) if method in ("post", "put", "patch") else None
    return http.request(method.upper(), path.format(**ids), **({} if body is None else {"json": body}))


def test_the_table_of_ids_knows_every_id_of_a_path(ids: dict[str, str]) -> None:
    for _, path in WITH_ID:
        path.format(**ids)


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_another_tenants_id_is_404_and_nothing_happens_to_it(
    owner: httpx2.Client, stranger: httpx2.Client, ids: dict[str, str], method: str, path: str
) -> None:
    thing = path[: path.index("}") + 1]
    before = owner.get(thing.format(**ids))
    assert before.status_code == 200, before.text
    theirs = ask(stranger, method, path, ids)
    assert theirs.status_code == 404, theirs.text
    unknown = {name: one[:-4] + "0000" for name, one in ids.items()}
    nobodys = ask(stranger, method, path, unknown)
    assert nobodys.status_code == 404
    # But for the id the answer is that of an id that never was.
    for name, one in ids.items():
        assert one not in nobodys.text
        theirs_text = theirs.text.replace(one, unknown[name])
        if one in theirs.text:
            assert theirs_text == nobodys.text
    assert theirs.json()["error"]["code"] == nobodys.json()["error"]["code"]
    assert owner.get(thing.format(**ids)).json() == before.json()


@pytest.mark.parametrize("path", LISTS)
def test_a_list_shows_ones_own_alone(
    owner: httpx2.Client, stranger: httpx2.Client, ids: dict[str, str], path: str
) -> None:
    shown = owner.get(path).json()["data"]
    assert shown
    assert stranger.get(path).json()["data"] == []
    assert stranger.get(path, params={"after": shown[0]["id"]}).status_code == 404


IN_BODIES = [
    ("/v1/responses", lambda ids: {"model": MODEL, "input": "And?", "previous_response_id": ids["response_id"]}),
    (
        "/v1/responses",
        lambda ids: {
            "model": MODEL,
            "input": [{"role": "user", "content": [{"type": "input_image", "file_id": ids["file_id"]}]}],
        },
    ),
    (
        "/v1/batches",
        lambda ids: {
            "input_file_id": ids["file_id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    ),
]


@pytest.mark.parametrize(("path", "body_of"), [each for each in IN_BODIES if each[0] in PATHS])
def test_another_tenants_id_in_a_body_is_an_unknown_one(
    stranger: httpx2.Client, ids: dict[str, str], path: str, body_of: Any
) -> None:
    theirs = stranger.post(path, json=body_of(ids))
    unknown = {name: one[:-4] + "0000" for name, one in ids.items()}
    nobodys = stranger.post(path, json=body_of(unknown))
    assert 400 <= theirs.status_code < 500, theirs.text
    assert theirs.status_code == nobodys.status_code
    assert theirs.json()["error"]["code"] == nobodys.json()["error"]["code"]
    assert stranger.get("/v1/jobs").json()["data"] == []


def test_tenants_do_not_share_idempotency_keys(api: ServedApi, owner: httpx2.Client, keys: PostgresApiKeys) -> None:
    with client_of(api, keys, "third") as third:
        answers = [http.post("/v1/jobs", json=CHAT, headers={"idempotency-key": "same"}) for http in (owner, third)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json()["id"] != answers[1].json()["id"]
        assert "idempotent-replayed" not in answers[1].headers
        other = third.post("/v1/jobs", json=CHAT | {"max_tokens": 1}, headers={"idempotency-key": "only the owner's"})
        assert other.status_code == 201


def test_keys_of_one_tenant_see_the_same(api: ServedApi, owner: httpx2.Client, keys: PostgresApiKeys) -> None:
    job_id = made(owner, "/v1/jobs", CHAT)
    with client_of(api, keys, "owner") as second:
        assert second.get(f"/v1/jobs/{job_id}").status_code == 200
        assert second.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == JobState.CANCELLED
        replayed = [http.post("/v1/jobs", json=CHAT, headers={"idempotency-key": "ours"}) for http in (owner, second)]
        assert replayed[0].json()["id"] == replayed[1].json()["id"]
