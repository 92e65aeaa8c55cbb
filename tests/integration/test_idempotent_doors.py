"""`Idempotency-Key` on every route whose document has it: once, not with another body, free after a refusal."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.services import Services
from jobs.job import JobState
from jobs.ports import JobFilter
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.eventually import eventually
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

PATHS: dict[str, Any] = json.loads((Path(__file__).parent / "openapi.json").read_text())["paths"]
DOORS = [
    path
    for path, item in PATHS.items()
    if any(parameter["name"] == "Idempotency-Key" for parameter in item.get("post", {}).get("parameters", []))
]
MESSAGES = [{"role": "user", "content": "Hello"}]
LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": MODEL, "messages": MESSAGES},
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/jobs": {"model": MODEL, "messages": MESSAGES},
    "/v1/chat/completions": {"model": MODEL, "messages": MESSAGES},
    "/v1/responses": {"model": MODEL, "input": "Hello"},
    "/v1/files": {"purpose": "user_data"},
    "/v1/batches": {"endpoint": "/v1/chat/completions", "completion_window": "24h"},
    "/v1/webhook_endpoints": {
        "name": "hook",
        "url": "https://93.184.215.14/hook",
        "event_types": ["response.completed"],
    },
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "/v1/files": {"purpose": "vision"},
    "/v1/webhook_endpoints": {"name": "another"},
}
"""What makes another request of it; of the others, metadata."""
AWAITED = [path for path in DOORS if path in ("/v1/chat/completions", "/v1/responses")]


@pytest.fixture(scope="module")
def api(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    folder = tmp_path_factory.mktemp("doors")
    with fresh_database(services) as database_url:
        settings = settings_for(database_url, services.redis_url, fresh_prefix(), folder)
        with served(settings.model_copy(update={"spool_folder": str(folder)})) as running:
            yield running


@pytest.fixture(scope="module")
def input_file(api: ServedApi) -> str:
    with api.client() as http:
        files = {"file": ("lines.jsonl", json.dumps(LINE).encode())}
        return str(http.post("/v1/files", data={"purpose": "batch"}, files=files).json()["id"])


Send = Callable[..., httpx2.Response]


@pytest.fixture
def send(http: httpx2.Client, input_file: str) -> Send:
    """Sends a door's request under a key, or with other fields another one."""

    def sent(path: str, key: str, **fields: Any) -> httpx2.Response:
        headers, body = {"idempotency-key": f"{key} of {path}"}, BODIES[path] | fields
        if path == "/v1/files":
            return http.post(path, data=body, files={"file": ("a.txt", b"Hello")}, headers=headers)
        if path == "/v1/batches":
            body["input_file_id"] = input_file
        return http.post(path, json=body, headers=headers)

    return sent


def test_every_door_has_a_body_here() -> None:
    assert set(DOORS) <= BODIES.keys()


@pytest.mark.parametrize("path", DOORS)
def test_the_same_request_again_makes_nothing_and_is_answered_alike(api: ServedApi, send: Send, path: str) -> None:
    with api.worker.serving():
        first, second = send(path, "again"), send(path, "again")
    assert first.is_success, first.text
    assert "idempotent-replayed" not in first.headers
    assert (second.status_code, second.headers["idempotent-replayed"]) == (first.status_code, "true")
    assert first.json()["id"] == second.json()["id"]
    if path in AWAITED:
        assert first.json() == second.json()


@pytest.mark.parametrize("path", DOORS)
def test_another_request_under_the_key_is_422(api: ServedApi, send: Send, path: str) -> None:
    other = OTHERWISE.get(path, {"metadata": {"a": "b"}})
    with api.worker.serving():
        assert send(path, "reused").is_success
        answer = send(path, "reused", **other)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert send(path, "another", **other).is_success


@pytest.mark.parametrize("path", DOORS)
def test_a_refused_request_leaves_its_key_free(api: ServedApi, send: Send, path: str) -> None:
    with api.worker.serving():
        assert send(path, "refused", nonsense="1").status_code == 400
        answer = send(path, "refused")
    assert answer.is_success, answer.text
    assert "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize("path", AWAITED)
def test_who_left_may_come_back_for_the_whole_answer(api: ServedApi, path: str) -> None:
    headers = {"idempotency-key": f"left {path}"}
    with api.client() as http, pytest.raises(httpx2.ReadTimeout):
        http.post(path, json=BODIES[path], headers=headers, timeout=0.5)
    with api.client() as http:
        early = http.post(path, json=BODIES[path], headers=headers)
        assert (early.status_code, early.json()["error"]["code"]) == (409, "idempotency_key_in_use")
        assert early.headers["x-should-retry"] == "false"
        job = api.worker.claim(early.headers["x-vlmq-job-id"])
        api.worker.answer(job)
        late = http.post(path, json=BODIES[path], headers=headers)
        assert (late.status_code, late.headers["idempotent-replayed"]) == (200, "true")
        assert late.json()["id"] == job.id


@pytest.mark.parametrize("path", AWAITED)
def test_a_stream_is_the_same_jobs_from_its_beginning(api: ServedApi, path: str) -> None:
    body, headers = BODIES[path] | {"stream": True}, {"idempotency-key": f"stream {path}"}
    with api.client() as http:
        with http.stream("POST", path, json=body, headers=headers) as first:
            assert first.status_code == 200
            next(first.iter_raw())
        # It has left in the middle, which cancels nothing.
        job = api.worker.claim(first.headers["x-vlmq-job-id"])
        api.worker.answer(job)
        whole, again = (http.post(path, json=body, headers=headers) for _ in range(2))
    assert whole.headers["idempotent-replayed"] == "true"
    assert whole.headers["x-vlmq-job-id"] == job.id
    assert api.worker.store.get(job.id).state is JobState.COMPLETED
    events = [line for line in whole.text.splitlines() if line.startswith("data: ")]
    assert len(events) > 3 and " red" in whole.text
    assert events == [line for line in again.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("path", AWAITED)
def test_without_a_key_leaving_cancels(api: ServedApi, path: str) -> None:
    with api.client() as http, pytest.raises(httpx2.ReadTimeout):
        http.post(path, json=BODIES[path], timeout=0.5)
    newest = api.worker.store.page("default", JobFilter(limit=1))[0]
    eventually("it is cancelled", lambda: api.worker.store.get(newest.id).state is JobState.CANCELLED)
