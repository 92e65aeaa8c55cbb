"""Responses asked for again under one idempotency key."""

from typing import Any

import httpx2
import pytest

from jobs.job import JobState
from tests.fixtures.api import ServedApi
from tests.fixtures.responses import BODY, refused

pytestmark = pytest.mark.integration


def test_same_key_gives_the_stored_answer_or_the_same_stream(api: ServedApi, http: httpx2.Client) -> None:
    def post(key: str, **fields: Any) -> httpx2.Response:
        return http.post("/v1/responses", json={**BODY, **fields}, headers={"idempotency-key": key})

    with api.worker.serving():
        first, second = post("whole", seed=1), post("whole", seed=1)
        assert first.json() == second.json() and second.headers["idempotent-replayed"] == "true"
        streams = [post("stream", stream=True) for _ in range(2)]
        assert streams[0].text == streams[1].text and "response.completed" in streams[0].text
    assert refused(post("whole", seed=2), 422)
    made = [post("behind", background=True).json() for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    http.post(f"/v1/responses/{made[0]['id']}/cancel")


def test_client_that_leaves_under_a_key_may_come_back_for_the_answer(api: ServedApi, http: httpx2.Client) -> None:
    headers = {"idempotency-key": "comes-back"}
    with pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/responses", json=BODY, headers=headers, timeout=0.5)
    busy = http.post("/v1/responses", json=BODY, headers=headers)
    assert refused(busy, 409)["code"] == "idempotency_key_in_use"
    assert busy.headers["x-should-retry"] == "false"
    job = api.worker.claim(busy.headers["x-vlmq-job-id"])
    assert api.worker.store.get(job.id).state is JobState.IN_PROGRESS
    api.worker.answer(job)
    done = http.post("/v1/responses", json=BODY, headers=headers).json()
    assert (done["id"], done["status"]) == (job.id, "completed")
