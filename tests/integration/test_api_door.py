"""What every request meets at the door: bad input, keys, ids, limits, health, metrics, the document."""

import json
import math
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from cli.services import Services
from jobs.database import Database
from jobs.job import BatchLine, Origin, Priority
from jobs.keys import PostgresApiKeys
from tests.fixtures.api import MODEL, ServedApi, served
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

USER = {"role": "user", "content": "Hello"}
BODY: dict[str, Any] = {"model": MODEL, "messages": [USER]}
DOORS = ("/v1/chat/completions", "/v1/jobs")
JSON = {"content-type": "application/json"}
SNAPSHOT = Path(__file__).parent / "openapi.json"


def refused(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.headers["x-request-id"])
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_type"),
        (b'{"model": NaN}', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 500_000, "invalid_json"),
    ],
)
def test_body_that_is_no_json_object_is_400(http: httpx2.Client, door: str, raw: bytes, code: str) -> None:
    assert refused(http.post(door, content=raw, headers=JSON), 400)["code"] == code


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"functions": []}, "functions", "unsupported_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"nonsense": 1}, "nonsense", "unknown_parameter"),
        ({"deadline": -5}, "deadline", "invalid_value"),
        ({"deadline": "yesterday"}, "deadline", "invalid_value"),
        ({"messages": [{"role": "user", "content": "<image> here"}]}, "messages[0].content", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ],
)
def test_wrong_field_is_400_with_its_name(
    http: httpx2.Client, door: str, fields: dict[str, Any], param: str, code: str | None
) -> None:
    error = refused(http.post(door, json=BODY | fields), 400)
    assert error["param"] == param
    assert code in (None, error["code"])


def with_image(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("door", DOORS)
def test_picture_of_thirty_megabytes_is_refused_by_its_size(http: httpx2.Client, door: str) -> None:
    error = refused(http.post(door, json=with_image("data:image/png;base64," + "QUJD" * 7_500_000)), 400)
    assert error["code"] == "image_file_too_large"


def test_body_beyond_the_limit_is_413_announced_or_not(http: httpx2.Client) -> None:
    block = b" " * 2**20
    for content in (block * 65, (block for _ in range(65))):
        answer = http.post("/v1/jobs", content=content, headers=JSON)
        assert refused(answer, 413)["code"] == "request_too_large"


def test_blob_source_of_a_client_is_refused(http: httpx2.Client) -> None:
    assert refused(http.post("/v1/jobs", json=with_image("blob:" + "a" * 64)), 400)["code"] == "invalid_image_url"


def test_nothing_refused_leaves_a_job(api: ServedApi, http: httpx2.Client) -> None:
    http.post("/v1/jobs", json=BODY | {"nonsense": 1})
    http.post("/v1/jobs", json=with_image("ftp://x"))
    assert http.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_415(http: httpx2.Client, kind: str) -> None:
    answer = http.post("/v1/jobs", content=json.dumps(BODY), headers={"content-type": kind})
    assert refused(answer, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("POST", "/v1/completions", 404, "unknown_url"),
        ("GET", "/v1/jobs/job_x/nothing", 404, "unknown_url"),
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
    ],
)
def test_unknown_path_or_method_has_openais_error(
    http: httpx2.Client, method: str, path: str, status: int, code: str
) -> None:
    error = refused(http.request(method, path), status)
    assert error["code"] == code
    assert path in error["message"]


def test_request_id_is_the_clients_when_it_is_sane(http: httpx2.Client) -> None:
    given = http.get("/healthz", headers={"x-request-id": "trace-1.a_B"})
    assert given.headers["x-request-id"] == "trace-1.a_B"
    for insane in ("a b", "x" * 129, "<script>", ""):
        assert http.get("/healthz", headers={"x-request-id": insane}).headers["x-request-id"].startswith("req_")


def test_health_is_the_process_and_readiness_what_it_needs(api: ServedApi, http: httpx2.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    waiting = http.get("/readyz")
    assert (waiting.status_code, waiting.json()["missing"]) == (503, [f"worker:{MODEL}"])
    assert http.get("/readyz", params={"scope": "api"}).status_code == 200
    api.worker.heartbeat()
    ready = http.get("/readyz")
    assert (ready.status_code, ready.json()["workers"]) == (200, {MODEL: 1})


def test_metrics_tell_of_requests_queue_and_workers(api: ServedApi, http: httpx2.Client) -> None:
    api.worker.heartbeat()
    job_id = http.post("/v1/jobs", json=BODY).json()["id"]
    text = http.get("/metrics").text
    for line in (
        'vlmq_http_requests_total{method="POST",route="/v1/jobs",status="201"}',
        f'vlmq_jobs{{lane="background",model="{MODEL}",state="queued"}} 1.0',
        f'vlmq_workers_alive{{model="{MODEL}"}} 1.0',
        f'vlmq_tokens_per_second{{model="{MODEL}"}} 100.0',
        "vlmq_streams_open 0.0",
        "vlmq_oldest_job_age_seconds",
        "vlmq_http_request_seconds_bucket",
    ):
        assert line in text
    http.post(f"/v1/jobs/{job_id}/cancel")
    http.delete(f"/v1/jobs/{job_id}")


def test_metrics_ask_for_their_own_token_where_there_is_one(services: Services, tmp_path: Path) -> None:
    with fresh_database(services) as database_url:
        told = settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)
        with served(told, metrics_token="m3tr1cs") as api, api.client() as http:
            for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic m3tr1cs"}):
                assert refused(http.get("/metrics", headers=wrong), 401)["code"] == "invalid_api_key"
            text = http.get("/metrics", headers={"authorization": "Bearer m3tr1cs"})
            assert (text.status_code, "vlmq_http_requests_total" in text.text) == (200, True)
            assert http.get("/healthz").status_code == 200


def test_document_is_the_one_that_was_agreed(http: httpx2.Client) -> None:
    """After a wanted change: `python -m tests.integration.test_api_door > tests/integration/openapi.json`."""
    assert http.get("/openapi.json").json() == json.loads(SNAPSHOT.read_text())


@pytest.fixture
def keyed(services: Services, tmp_path: Path) -> Iterator[tuple[ServedApi, PostgresApiKeys]]:
    with fresh_database(services) as database_url:
        database = Database(database_url)
        with served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as api:
            yield api, PostgresApiKeys(database)
        database.close()


def test_keys_open_the_door_and_part_the_tenants(keyed: tuple[ServedApi, PostgresApiKeys]) -> None:
    api, keys = keyed
    with api.client() as http:
        early = http.post("/v1/jobs", json=BODY).json()["id"]
        (_, first), (other_key, other) = keys.create("one", "a"), keys.create("two", "b")
        refused(http.get("/v1/jobs"), 401)
        for wrong in ("Bearer nonsense", "Bearer", f"Basic {first}", first, "Bearer \xff"):
            error = refused(http.get("/v1/jobs", headers={"authorization": wrong.encode("latin-1")}), 401)
            assert error["code"] == "invalid_api_key"
        mine = {"authorization": f"Bearer {first}"}
        theirs = {"authorization": f"Bearer {other}"}
        job_id = http.post("/v1/jobs", json=BODY, headers=mine).json()["id"]
        assert http.get(f"/v1/jobs/{job_id}", headers=mine).status_code == 200
        assert [job["id"] for job in http.get("/v1/jobs", headers=mine).json()["data"]] == [job_id]
        assert http.get("/v1/jobs", headers=theirs).json()["data"] == []
        for hidden in (job_id, early):
            for request in ("GET ", "DELETE ", "POST /cancel", "POST /requeue", "GET /events"):
                method, _, path = request.partition(" ")
                refused(http.request(method, f"/v1/jobs/{hidden}{path}", headers=theirs), 404)
        refused(http.get("/v1/jobs", params={"after": job_id}, headers=theirs), 404)
        keys.revoke(other_key.id)
        refused(http.get("/v1/jobs", headers=theirs), 401)
        for public in ("/healthz", "/metrics", "/openapi.json"):
            assert http.get(public).status_code == 200
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.request_id


def test_client_that_leaves_in_mid_body_is_no_fault_of_the_server(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as api,
        api.client() as http,
    ):
        head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        address = urlsplit(api.url)
        with socket.create_connection((address.hostname, address.port)) as client:
            client.sendall(f'{head}Content-Length: 100\r\n\r\n{{"model":'.encode())
        counted = 'vlmq_http_requests_total{method="POST",route="/v1/jobs",status="%s"}'
        eventually("it is counted", lambda: counted % 499 in http.get("/metrics").text)
        assert counted % 500 not in http.get("/metrics").text


def test_full_queue_answers_429_with_a_time_to_come_back(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path), max_queued=2) as api,
        api.client() as http,
    ):
        api.worker.stats["served_per_s"] = 10.0
        api.worker.heartbeat()
        line = BatchLine("batch_1", 1)
        api.worker.store.insert(new_job(model=MODEL, priority=Priority.BATCH, origin=Origin(batch=line), cost=9000))
        made = [http.post("/v1/jobs", json=BODY) for _ in range(2)]
        assert [answer.status_code for answer in made] == [201, 201]
        answer = http.post("/v1/jobs", json=BODY)
        assert refused(answer, 429)["code"] == "queue_full"
        # A tenth of what waits, lines of batches aside, at the workers' speed.
        tokens = sum(api.worker.store.get(answer.json()["id"]).cost for answer in made)
        assert int(answer.headers["retry-after"]) == math.ceil(tokens / 10 / 10.0)


def test_dead_database_answers_503_and_dead_redis_loses_no_job(private_services: Services, tmp_path: Path) -> None:
    services = settings_for(private_services.database_url, private_services.redis_url, "t:", tmp_path)
    with served(services) as api, api.client() as http:
        private_services.valkey.kill()
        job_id = http.post("/v1/jobs", json=BODY).json()["id"]
        assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"
        assert http.get("/readyz", params={"scope": "api"}).json()["missing"] == ["redis"]
        assert http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
        private_services.postgres.stop()
        for answer in (http.post("/v1/jobs", json=BODY), http.get(f"/v1/jobs/{job_id}"), http.get("/metrics")):
            error = refused(answer, 503)
            assert (error["code"], answer.headers["retry-after"]) == ("service_unavailable", "2")
            assert "postgres" not in error["message"]
        assert http.get("/readyz", params={"scope": "api"}).json()["missing"] == ["postgres", "redis"]
        assert http.get("/healthz").status_code == 200


def test_application_imports_neither_torch_nor_the_worker() -> None:
    code = "import sys, api.__main__; print({'torch', 'numpy', 'worker', 'tokenizers'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "set()"


if __name__ == "__main__":
    from api.app import create_app
    from api.settings import ApiSettings
    from jobs.settings import ServiceSettings

    print(json.dumps(create_app(ApiSettings(), ServiceSettings()).openapi(), indent=1, sort_keys=True))
