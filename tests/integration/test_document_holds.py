"""Requests made from the OpenAPI document, right ones and wrong ones: the server answers each as the document says."""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import hypothesis
import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import checks as said

from api.app import create_app
from api.settings import ApiSettings
from cli.services import Services
from jobs.counting import Counted, RedisCounting
from jobs.settings import ServiceSettings
from jobs.webhooks.settings import WebhookSettings
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CASES = 2000
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
HOOK = "http://127.0.0.1:9/hook"
"""Where nobody listens."""
DOCUMENT = schemathesis.openapi.from_dict(create_app(ApiSettings(), ServiceSettings()).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in DOCUMENT.get_all_operations()}
MANY = [it for it in OPERATIONS.values() if it.body or it.query or it.path_parameters or it.headers]
"""Those that there is something to draw for."""
EACH = CASES // len(MANY) + 2
"""A little more than their share: of some there are fewer different requests."""
THINGS = 4
"""How many an operation meets of what its path names."""
CHECKS = [
    not_a_server_error,
    said.status_code_conformance,
    said.content_type_conformance,
    said.response_headers_conformance,
    said.response_schema_conformance,
]
sent: Counter[str] = Counter()


@contextmanager
def counting(api: ServedApi) -> Iterator[None]:
    """A worker that lives and counts every prompt."""
    stop = threading.Event()

    def loop(client: redis.Redis) -> None:
        asked = RedisCounting(client, api.services.redis_prefix)
        while not stop.is_set():
            api.worker.heartbeat()
            if (taken := asked.take(api.services.models[0])) is not None:
                asked.answer(taken[0], Counted(prompt_tokens=30, image_tokens=16, context_length=100, room=70))

    with redis.Redis.from_url(api.services.redis_url) as client:
        thread = threading.Thread(target=loop, args=(client,))
        thread.start()
        yield
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def busy(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    """A server whose workers answer everything; webhooks may be here."""
    with fresh_database(services) as url:
        settings = settings_for(url, services.redis_url, fresh_prefix(), tmp_path_factory.mktemp("busy"))
        hooks = WebhookSettings(allowed_hosts=("127.0.0.1",))
        with served(settings, hooks) as api, api.worker.serving(), counting(api):
            yield api


class Seeds:
    """What there is for the ids in paths, made anew for each operation, for some of them delete."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def of(self, name: str) -> list[str]:
        made = [getattr(self, f"_{name}")() for _ in range(THINGS)]
        assert all(made), name
        return made

    def _post(self, path: str, body: dict[str, Any]) -> str:
        answer = self._http.post(path, json={"model": MODEL} | body)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    def _model(self) -> str:
        return MODEL

    def _job_id(self) -> str:
        job = self._post("/v1/jobs", CHAT | {"webhook": HOOK})
        self._http.get(f"/v1/jobs/{job}", params={"wait": 30})
        return job

    def _completion_id(self) -> str:
        return self._post("/v1/chat/completions", CHAT | {"store": True})

    def _response_id(self) -> str:
        return self._post("/v1/responses", {"input": "Hello"})

    def _file_id(self) -> str:
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": MODEL} | CHAT}
        sent = self._http.post(
            "/v1/files", files={"file": ("lines.jsonl", json.dumps(line).encode())}, data={"purpose": "batch"}
        )
        return str(sent.json()["id"])

    def _batch_id(self) -> str:
        asked = {
            "input_file_id": self._file_id(),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        return str(self._http.post("/v1/batches", json=asked).json()["id"])

    def _endpoint_id(self) -> str:
        for old in self._http.get("/v1/webhook_endpoints", params={"limit": 100}).json()["data"][THINGS:]:
            self._http.delete(f"/v1/webhook_endpoints/{old['id']}")
        asked = {"name": "ours", "url": HOOK, "event_types": ["job.completed"]}
        return str(self._http.post("/v1/webhook_endpoints", json=asked).json()["id"])

    def _delivery_id(self) -> str:
        told = self._http.get("/v1/webhook_deliveries", params={"subject": self._job_id()}).json()
        return str(told["data"][0]["id"])


@pytest.mark.parametrize("label", OPERATIONS)
def test_operation_answers_as_the_document_says(busy: ServedApi, label: str) -> None:
    operation = OPERATIONS[label]
    with busy.client() as http:
        seeds = Seeds(http)
        known = {name: seeds.of(name) for name in re.findall(r"{(\w+)}", label)}
    right = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @hypothesis.seed(7)
    @hypothesis.settings(
        max_examples=EACH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        case = data.draw(right if data.draw(st.booleans()) else wrong)
        if data.draw(st.booleans()):
            _point_at_something(case, known, data)
        sent[label] += 1
        case.call_and_validate(base_url=busy.url, checks=CHECKS, timeout=60)

    holds()


def _point_at_something(case: Any, known: dict[str, list[str]], data: st.DataObject) -> None:
    for name in case.path_parameters or {}:
        if name in known:
            case.path_parameters[name] = data.draw(st.sampled_from(known[name]))


def test_cases_were_as_many_as_promised() -> None:
    if len(sent) < len(OPERATIONS):
        pytest.skip("only some operations were asked for")
    assert sum(sent.values()) >= CASES
