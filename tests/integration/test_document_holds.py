"""Requests made from the OpenAPI document, right ones and wrong ones: the server answers each as the document says."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
from jobs.counting import Counted, RedisCounting
from jobs.settings import ServiceSettings
from tests.fixtures.api import ServedApi

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CASES = 2000
DOCUMENT = schemathesis.openapi.from_dict(create_app(ApiSettings(), ServiceSettings()).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in DOCUMENT.get_all_operations()}
MANY = [it for it in OPERATIONS.values() if it.body or it.query or it.path_parameters or it.headers]
"""Those that there is something to draw for."""
EACH = -(-CASES // len(MANY))
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
def busy(api: ServedApi) -> Iterator[ServedApi]:
    """A server whose workers answer everything."""
    with api.worker.serving(), counting(api):
        yield api


@pytest.fixture(scope="module")
def known(busy: ServedApi) -> dict[str, list[str]]:
    """Values of path parameters that there is something for."""
    with busy.client() as http:
        body = {"model": busy.services.models[0], "messages": [{"role": "user", "content": "Hello"}]}
        jobs = [http.post("/v1/jobs", json=body).json()["id"] for _ in range(20)]
        for job in jobs:
            http.get(f"/v1/jobs/{job}", params={"wait": 30})
    return {"job_id": jobs, "model": list(busy.services.models)}


@pytest.mark.parametrize("label", OPERATIONS)
def test_operation_answers_as_the_document_says(busy: ServedApi, known: dict[str, list[str]], label: str) -> None:
    operation = OPERATIONS[label]
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
