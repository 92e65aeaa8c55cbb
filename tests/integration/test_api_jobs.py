"""The jobs API over the real server, store and event log: submit, read, list, cancel, follow, resume."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cli.services import Services
from jobs.events import log_of
from jobs.job import AttemptEnd, FinishReason, JobError, JobState, Outcome
from tests.fixtures.api import MODEL, ServedApi, served, tokens_of
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is this?"}]}


@dataclass(frozen=True)
class SseEvent:
    id: int
    name: str
    data: dict[str, Any]


def submit(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json=BODY | fields)
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{shown['id']}"
    return shown


def parsed(block: str) -> SseEvent | None:
    fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
    return SseEvent(int(fields["id"]), fields["event"], json.loads(fields["data"])) if fields else None


def events_in(text: str) -> list[SseEvent]:
    return [event for block in text.split("\n\n") if (event := parsed(block)) is not None]


def follow(http: httpx2.Client, job_id: str, after: int | None = None) -> Iterator[SseEvent]:
    headers = {} if after is None else {"last-event-id": str(after)}
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = ""
        for chunk in answer.iter_text():
            text += chunk
            *blocks, text = text.split("\n\n")
            yield from (event for block in blocks if (event := parsed(block)) is not None)


def done(api: ServedApi, http: httpx2.Client, words: int = 5, **fields: Any) -> str:
    """A completed job's id."""
    job_id: str = submit(http, **fields)["id"]
    api.worker.answer(api.worker.claim(job_id), tokens_of([f"{n} " for n in range(words)]))
    return job_id


def test_job_is_submitted_run_and_read(api: ServedApi, http: httpx2.Client) -> None:
    shown = submit(http, metadata={"team": "a"}, deadline=600)
    assert shown["id"].startswith("job_")
    expected = {"object": "job", "status": "queued", "model": MODEL, "priority": "background", "queue_position": 0}
    assert shown.items() >= expected.items()
    assert shown["metadata"] == {"team": "a"} and shown["attempts"] == [] and shown["output"] == ""
    assert isinstance(shown["created_at"], int) and 590 < shown["deadline"] - time.time() < 601

    job = api.worker.claim(shown["id"])
    api.worker.save(job, tokens_of(("A ", "red ")))
    running = http.get(f"/v1/jobs/{job.id}").json()
    assert (running["status"], running["output"], running["queue_position"]) == ("in_progress", "A red ", None)

    api.worker.finish(job, tokens_of(("A ", "red ", "bus")), FinishReason.LENGTH)
    ended = http.get(f"/v1/jobs/{job.id}").json()
    assert (ended["status"], ended["output"], ended["finish_reason"]) == ("incomplete", "A red bus", "length")
    assert ended["usage"]["total_tokens"] == 23 and ended["error"] is None
    (attempt,) = ended["attempts"]
    assert (attempt["number"], attempt["worker"], attempt["end"], attempt["tokens"]) == (
        1, api.worker.id, AttemptEnd.FINISHED.value, 3,
    )  # fmt: skip
    times = [ended["timeline"][at] for at in ("queued_at", "claimed_at", "prepared_at", "first_token_at", "done_at")]
    assert times == sorted(times)


def test_waiting_jobs_show_how_many_go_before_them(api: ServedApi, http: httpx2.Client) -> None:
    ids = [submit(http)["id"] for _ in range(3)]
    urgent = submit(http, priority="interactive")
    assert urgent["queue_position"] == 0
    assert [http.get(f"/v1/jobs/{job_id}").json()["queue_position"] for job_id in ids] == [1, 2, 3]
    for job_id in [*ids, urgent["id"]]:
        http.post(f"/v1/jobs/{job_id}/cancel")


def test_waiting_jobs_say_when_they_begin_once_a_worker_has_told_its_speed(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as api,
        api.client() as http,
    ):
        first, last = submit(http, max_tokens=100), submit(http, max_tokens=100)
        assert (first["queue_position"], first["eta_s"], last["eta_s"]) == (0, None, None)
        api.worker.heartbeat()
        cost = api.worker.store.get(first["id"]).cost
        assert cost > 100
        shown = http.get(f"/v1/jobs/{last['id']}").json()
        assert (shown["queue_position"], shown["eta_s"]) == (1, round(cost / 200, 1))
        api.worker.claim(first["id"])
        running, waiting = (http.get(f"/v1/jobs/{job['id']}").json() for job in (first, last))
        assert (running["queue_position"], running["eta_s"]) == (None, None)
        assert (waiting["queue_position"], waiting["eta_s"]) == (0, round(cost / 200, 1))


def test_long_poll_answers_when_the_job_ends(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    assert http.get(f"/v1/jobs/{job_id}", params={"wait": 0.1}).json()["status"] == "queued"
    timer = threading.Timer(0.3, lambda: api.worker.answer(api.worker.claim(job_id)))
    timer.start()
    assert http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).json()["status"] == "completed"
    timer.join()


def test_chat_completion_is_a_job_too(api: ServedApi, http: httpx2.Client) -> None:
    with api.worker.serving():
        job_id = http.post("/v1/chat/completions", json=BODY).json()["id"]
    assert http.get(f"/v1/jobs/{job_id}").json()["output"] == "A red bus."
    assert [event.name for event in follow(http, job_id)][-1] == "job.completed"


def test_log_resumes_at_every_sequence_during_and_after_the_job(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    job = api.worker.claim(job_id)
    tokens = tokens_of([f"{n} " for n in range(6)])
    api.worker.say(job, tokens[:3])
    live: list[SseEvent] = []
    stream = follow(http, job_id)
    for event in stream:
        live.append(event)
        if event.id == 4:
            api.worker.say(job, tokens[3:], 3)
            api.worker.finish(job, tokens)
    assert [event.id for event in live] == list(range(9))
    names = ["job.queued", "job.in_progress", *["job.delta"] * 6, "job.completed"]
    assert [event.name for event in live] == names == [event.data["type"] for event in live]
    assert "".join(event.data.get("text", "") for event in live) == "0 1 2 3 4 5 "
    assert live[-1].data["job"]["output"] == "0 1 2 3 4 5 "
    assert all(event.data["sequence"] == event.id and event.data["job_id"] == job_id for event in live)
    for after in range(8):
        assert list(follow(http, job_id, after)) == live[after + 1 :]
        again = http.get(f"/v1/jobs/{job_id}/events", params={"starting_after": after})
        assert events_in(again.text) == live[after + 1 :]


@pytest.mark.parametrize(
    "fields", [{"min_tokens": 2**31 - 1}, {"min_tokens": 2**31 - 1, "n": 8}, {"max_tokens": 2**31 - 1}]
)
def test_job_that_asks_for_more_than_any_model_has_is_recorded_for_its_worker_to_refuse(
    api: ServedApi, http: httpx2.Client, fields: dict[str, int]
) -> None:
    job = api.worker.claim(submit(http, **fields)["id"])
    api.worker.fail(job, JobError("context_length_exceeded", "too long"))
    assert http.get(f"/v1/jobs/{job.id}").json()["error"]["code"] == "context_length_exceeded"


def test_end_of_an_ended_log_answers_204_so_that_browsers_stop(api: ServedApi, http: httpx2.Client) -> None:
    job_id = done(api, http, words=2)
    assert http.get(f"/v1/jobs/{job_id}/events", params={"starting_after": 4}).status_code == 204


def test_log_outlives_redis(api: ServedApi, http: httpx2.Client) -> None:
    job_id = done(api, http)
    before = list(follow(http, job_id))
    api.worker.events.drop(job_id)
    assert list(follow(http, job_id)) == before


def test_silent_stream_gets_keep_alive_comments(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        for chunk in answer.iter_text():
            if ": keep-alive\n" in chunk:
                break
    http.post(f"/v1/jobs/{job_id}/cancel")


@pytest.mark.parametrize("bad", ["-1", "x", "1.5", "99999999999999999999", "٣"])
def test_wrong_resume_point_is_refused(api: ServedApi, http: httpx2.Client, bad: str) -> None:
    job_id = done(api, http, words=1)
    by_query = http.get(f"/v1/jobs/{job_id}/events", params={"starting_after": bad})
    assert (by_query.status_code, by_query.json()["error"]["param"]) == (400, "starting_after")
    by_header = http.get(f"/v1/jobs/{job_id}/events", headers={"last-event-id": bad.encode()})
    assert (by_header.status_code, by_header.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_resume_point_beyond_the_end_is_refused(api: ServedApi, http: httpx2.Client) -> None:
    answer = http.get(f"/v1/jobs/{done(api, http, words=1)}/events", params={"starting_after": 50})
    assert answer.status_code == 400
    assert "ends at 3" in answer.json()["error"]["message"]


def test_cancel_of_a_queued_job_ends_it_and_its_stream(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    stream = follow(http, job_id)
    assert next(stream).name == "job.queued"
    cancelled = http.post(f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert [event.name for event in stream] == ["job.cancelled"]
    assert http.post(f"/v1/jobs/{job_id}/cancel").json() == cancelled.json()


def test_cancel_of_a_running_job_keeps_what_was_published(api: ServedApi, http: httpx2.Client) -> None:
    job = api.worker.claim(submit(http)["id"])
    api.worker.save(job, tokens_of(("one ",)))
    api.worker.say(job, tokens_of(("one ", "two ", "three ")))
    assert http.post(f"/v1/jobs/{job.id}/cancel").json()["output"] == "one two three "
    assert [event.id for event in follow(http, job.id)] == [0, 1, 2, 3, 4, 5]
    assert api.worker.store.not_ours(api.worker.id, {job.id: 1}) == {job.id}


def test_cancel_of_an_ended_job_changes_nothing(api: ServedApi, http: httpx2.Client) -> None:
    job_id = done(api, http)
    assert http.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "completed"


def test_log_without_its_end_is_closed_by_whoever_reads_it(api: ServedApi, http: httpx2.Client) -> None:
    job = api.worker.claim(submit(http)["id"])
    stream = follow(http, job.id)
    assert next(stream).name == "job.queued"
    # The worker dies between the row and the log.
    error = JobError("server_error", "broken")
    api.worker.store.finish(job.id, job.attempt, Outcome(JobState.FAILED, tokens_of(("one ",)), error=error))
    assert [event.name for event in stream] == ["job.in_progress", "job.delta", "job.failed"]
    assert api.worker.events.read(job.id) == log_of(api.worker.store.get(job.id))


def test_delete_needs_an_end_and_then_forgets_everything(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    refused = http.delete(f"/v1/jobs/{job_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_not_finished")
    assert refused.headers["x-should-retry"] == "false"
    api.worker.answer(api.worker.claim(job_id))
    assert http.delete(f"/v1/jobs/{job_id}").json() == {"id": job_id, "object": "job", "deleted": True}
    for answer in (http.get(f"/v1/jobs/{job_id}"), http.delete(f"/v1/jobs/{job_id}")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    assert api.worker.events.read(job_id) == []


def test_dead_letter_is_given_back_and_goes_on(api: ServedApi, http: httpx2.Client) -> None:
    job_id = submit(http)["id"]
    for _ in range(api.services.max_attempts):
        job = api.worker.claim(job_id)
        job = api.worker.store.give_back(job.id, job.attempt, AttemptEnd.ENGINE_DIED, "boom", tokens_of(("one ",)))
    assert http.get(f"/v1/jobs/{job_id}").json()["error"]["code"] == "too_many_attempts"
    assert list(follow(http, job_id))[-1].name == "job.failed"
    again = http.post(f"/v1/jobs/{job_id}/requeue").json()
    assert (again["status"], again["output"], again["error"]) == ("queued", "one ", None)
    job = api.worker.claim(job_id)
    api.worker.say(job, tokens_of(("two",), 1), after=1)
    api.worker.finish(job, tokens_of(("one ", "two")))
    assert [event.data.get("text") for event in follow(http, job_id)] == [None, None, "one ", "two", None]


def test_requeue_of_anything_else_is_refused(api: ServedApi, http: httpx2.Client) -> None:
    answer = http.post(f"/v1/jobs/{done(api, http)}/requeue")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "illegal_transition")


def test_jobs_are_listed_in_pages_and_by_filter(api: ServedApi, http: httpx2.Client) -> None:
    ids = [done(api, http, words=1, metadata={"batch": "list", "n": str(n)}) for n in range(5)]

    def page(**params: Any) -> tuple[list[str], bool]:
        shown = http.get("/v1/jobs", params={"metadata[batch]": "list", **params}).json()
        found = [job["id"] for job in shown["data"]]
        assert shown["object"] == "list"
        assert (shown["first_id"], shown["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return found, shown["has_more"]

    assert page() == (ids[::-1], False)
    assert page(limit=2) == ([ids[4], ids[3]], True)
    assert page(limit=2, after=ids[3]) == ([ids[2], ids[1]], True)
    assert page(limit=2, after=ids[1]) == ([ids[0]], False)
    assert page(order="asc", limit=2) == (ids[:2], True)
    assert page(**{"metadata[n]": "3"}) == ([ids[3]], False)
    assert page(status="completed", model=MODEL)[0] == ids[::-1]
    assert page(status="queued") == ([], False)
    assert page(model="another") == ([], False)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"order": "up"}, "order"),
        ({"status": "done"}, "status"),
        ({"page": 2}, "page"),
        ({"metadata[]": "x"}, "metadata[]"),
        ({"model": ["a", "b"]}, "model"),
    ],
)
def test_wrong_list_parameter_is_refused_by_name(http: httpx2.Client, params: dict[str, Any], param: str) -> None:
    answer = http.get("/v1/jobs", params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_page_behind_an_unknown_job_is_404(http: httpx2.Client) -> None:
    assert http.get("/v1/jobs", params={"after": "job_none"}).status_code == 404


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan", "inf"])
def test_wrong_wait_is_refused(http: httpx2.Client, wait: str) -> None:
    answer = http.get("/v1/jobs/job_none", params={"wait": wait})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "wait")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("job_id", ["job_none", "job_%00", "%F0%9F%8E%89", "a" * 5000])
def test_unknown_job_is_404_whatever_its_id(http: httpx2.Client, method: str, job_id: str) -> None:
    answer = http.request(method, f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
