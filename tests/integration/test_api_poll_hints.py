"""`openai-poll-after-ms`: when it is worth asking again for a job or a response that has not ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.services import Services
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.eventually import eventually
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

HEADER = "openai-poll-after-ms"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/jobs": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 400, "background": True},
}


@pytest.fixture
def api(services: Services, tmp_path: Path) -> Iterator[ServedApi]:
    """A queue and workers of the test's own: hints tell of both."""
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as it,
    ):
        yield it


def ask(http: httpx2.Client, path: str) -> httpx2.Response:
    return http.post(path, json={"model": MODEL} | BODIES[path]).raise_for_status()


@pytest.mark.parametrize("path", list(BODIES))
def test_waiting_says_when_it_begins_and_running_a_second_and_ended_nothing(api: ServedApi, path: str) -> None:
    with api.client() as http:
        unknown = ask(http, path)
        assert unknown.headers[HEADER] == "1000"
        api.worker.heartbeat()
        first, second = unknown.json()["id"], ask(http, path).json()["id"]
        cost = api.worker.store.get(first).cost
        assert 500 < 1000 * cost / 200 < 5000
        begins_ms = str(round(1000 * round(cost / 200, 1)))
        # What a server knows of speeds is up to a second old.
        eventually("it knows when", lambda: http.get(f"{path}/{second}").headers[HEADER] == begins_ms)
        eventually("no hint is longer", lambda: ask(http, path).headers[HEADER] == "5000", every_s=0.2)
        job = api.worker.claim(first)
        assert http.get(f"{path}/{first}").headers[HEADER] == "1000"
        api.worker.answer(job)
        assert HEADER not in http.get(f"{path}/{first}").headers
        assert http.post(f"{path}/{second}/cancel").json()["status"] == "cancelled"
        assert HEADER not in http.get(f"{path}/{second}").headers
