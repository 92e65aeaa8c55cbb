"""Jobs whose rows this version cannot read, through the API: shown, listed, followed, ended; never a fault."""

import json
from typing import Any

import httpx2
import pytest

from jobs.job import JobError
from tests.fixtures.api import MODEL, ServedApi, tokens_of
from tests.fixtures.damage import SAID, damage, write

pytestmark = pytest.mark.integration

HELLO = [{"role": "user", "content": "What is this?"}]
FAULT = "an unknown key"


def submitted(http: httpx2.Client, path: str = "/v1/jobs", **fields: Any) -> str:
    answer = http.post(path, json={"model": MODEL} | ({} if "input" in fields else {"messages": HELLO}) | fields)
    assert answer.is_success, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def names(stream: str) -> list[str]:
    return [line.removeprefix("event: ") for line in stream.splitlines() if line.startswith("event: ")]


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_unreadable_job_is_shown_listed_cancelled_followed_and_deleted(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submitted(http, metadata={"team": "unreadable"})
    damage(api.services.database_url, job_id)
    shown = http.get(f"/v1/jobs/{job_id}").json()
    assert (shown["status"], shown["output"], shown["queue_position"]) == ("queued", "", 0)
    (listed,) = http.get("/v1/jobs", params={"metadata[team]": "unreadable"}).json()["data"]
    assert (listed["id"], listed["metadata"]) == (job_id, {"team": "unreadable"})
    cancelled = http.post(f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert names(http.get(f"/v1/jobs/{job_id}/events").text) == ["job.queued", "job.cancelled"]
    assert http.delete(f"/v1/jobs/{job_id}").json()["deleted"] is True


def test_unreadable_job_that_failed_says_why_and_is_given_back(api: ServedApi, http: httpx2.Client) -> None:
    url, job_id = api.services.database_url, submitted(http)
    stored = damage(url, job_id)
    job = api.worker.claim(job_id)
    api.worker.fail(job, JobError("job_unreadable", str(job.unreadable)))
    shown = http.get(f"/v1/jobs/{job_id}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "job_unreadable")
    assert SAID[FAULT] in shown["error"]["message"]
    assert names(http.get(f"/v1/jobs/{job_id}/events").text)[-1] == "job.failed"
    assert job_id in [dead["id"] for dead in http.get("/v1/jobs", params={"dead": True}).json()["data"]]
    assert http.post(f"/v1/jobs/{job_id}/requeue").json()["status"] == "queued"
    write(url, job_id, request=stored)
    api.worker.answer(api.worker.claim(job_id))
    assert http.get(f"/v1/jobs/{job_id}").json()["output"] == "A red bus."


def test_unreadable_response_is_shown_but_nothing_goes_on_from_it(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submitted(http, "/v1/responses", input="Hi", background=True)
    api.worker.answer(api.worker.claim(job_id))
    damage(api.services.database_url, job_id)
    shown = http.get(f"/v1/responses/{job_id}").json()
    assert (shown["status"], shown["output"][0]["content"][0]["text"]) == ("completed", "A red bus.")
    stream = http.get(f"/v1/responses/{job_id}", params={"stream": True}).text
    assert names(stream)[-1] == "response.completed"
    assert error_of(http.get(f"/v1/responses/{job_id}/input_items")) == (409, "job_unreadable")
    then = {"model": MODEL, "input": "And?", "previous_response_id": job_id}
    refused = http.post("/v1/responses", json=then)
    assert error_of(refused) == (409, "job_unreadable")
    assert SAID[FAULT] in refused.json()["error"]["message"]
    assert http.post(f"/v1/responses/{job_id}/cancel").json()["status"] == "completed"
    assert http.delete(f"/v1/responses/{job_id}").json()["deleted"] is True


@pytest.mark.parametrize(
    "door", [{"text_format": 5}, {"input": [{"type": "computer_call"}]}, {"instructions": {"id": "prompt"}}, [1]]
)
def test_response_that_a_later_version_was_asked_for_is_shown_without_what_is_unknown(
    api: ServedApi, http: httpx2.Client, door: Any
) -> None:
    job_id = submitted(http, "/v1/responses", input="Hi", background=True)
    api.worker.answer(api.worker.claim(job_id))
    write(api.services.database_url, job_id, door=json.dumps(door))
    assert http.get(f"/v1/responses/{job_id}").json()["status"] == "completed"
    assert names(http.get(f"/v1/responses/{job_id}", params={"stream": True}).text)[-1] == "response.completed"
    assert error_of(http.get(f"/v1/responses/{job_id}/input_items")) == (409, "job_unreadable")


def test_unreadable_stored_completion_is_shown_and_listed_without_its_messages(
    api: ServedApi, http: httpx2.Client
) -> None:
    with api.worker.serving():
        completion = submitted(http, "/v1/chat/completions", store=True, metadata={"team": "stored"})
    damage(api.services.database_url, completion)
    shown = http.get(f"/v1/chat/completions/{completion}").json()
    assert shown["choices"][0]["message"]["content"] == "A red bus."
    listed = http.get("/v1/chat/completions", params={"metadata[team]": "stored"}).json()["data"]
    assert [each["id"] for each in listed] == [completion]
    assert error_of(http.get(f"/v1/chat/completions/{completion}/messages")) == (409, "job_unreadable")
    assert http.delete(f"/v1/chat/completions/{completion}").json()["deleted"] is True


def test_completion_whose_job_no_worker_can_read_ends_with_its_error(api: ServedApi, http: httpx2.Client) -> None:
    fail = JobError("job_unreadable", "request: unknown field")
    with api.worker.serving(lambda job: api.worker.fail(job, fail, tokens_of(("A",)))):
        answer = http.post("/v1/chat/completions", json={"model": MODEL, "messages": HELLO})
    assert error_of(answer) == (500, "job_unreadable")
    assert answer.headers["x-should-retry"] == "false"
