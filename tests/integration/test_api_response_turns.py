"""Responses that go on from earlier ones, and those that nothing can follow."""

import re
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from cli.services import Services
from jobs.database import Database
from jobs.job import FinishReason, JobError
from jobs.keys import PostgresApiKeys
from jobs.request import Role
from tests.fixtures.api import MODEL, ServedApi, served, tokens_of
from tests.fixtures.responses import BODY, PIXEL, content, refused, said
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

pytestmark = pytest.mark.integration


def test_turn_goes_on_from_an_earlier_one_without_its_instructions(api: ServedApi, client: openai.OpenAI) -> None:
    picture: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]}]
    with api.worker.serving():
        first = client.responses.create(model=MODEL, input=picture, instructions="Be brief.")
        second = client.responses.create(model=MODEL, input="Sure?", previous_response_id=first.id)
        third = client.responses.create(
            model=MODEL, input="Really?", previous_response_id=second.id, instructions="Be long."
        )
    asked = [api.worker.store.get(response.id).request for response in (first, second, third)]
    answer = said(Role.ASSISTANT, "A red bus.")
    assert asked[1].messages == (asked[0].messages[1], answer, said(Role.USER, "Sure?"))
    assert asked[2].messages == (
        said(Role.SYSTEM, "Be long."), *asked[1].messages, answer, said(Role.USER, "Really?"),
    )  # fmt: skip
    assert asked[2].blobs() == asked[0].blobs() and len(asked[0].blobs()) == 1
    assert third.previous_response_id == second.id
    client.responses.delete(first.id)
    client.responses.delete(second.id)
    assert len(client.responses.input_items.list(third.id).data) == 1


def test_turn_goes_on_from_what_was_cut_or_cancelled(api: ServedApi, client: openai.OpenAI) -> None:
    with api.worker.serving(lambda job: api.worker.finish(job, tokens_of(("A ",)), FinishReason.LENGTH)):
        cut = client.responses.create(model=MODEL, input="One")
    cancelled = client.responses.create(model=MODEL, input="Two", background=True)
    client.responses.cancel(cancelled.id)
    with api.worker.serving():
        behind = [
            client.responses.create(model=MODEL, input="Three", previous_response_id=response.id)
            for response in (cut, cancelled)
        ]
    asked = [api.worker.store.get(response.id).request.messages for response in behind]
    assert asked[0] == (said(Role.USER, "One"), said(Role.ASSISTANT, "A "), said(Role.USER, "Three"))
    assert asked[1] == (said(Role.USER, "Two"), said(Role.USER, "Three"))


def test_previous_response_that_nothing_can_follow_is_refused(
    api: ServedApi, client: openai.OpenAI, http: httpx2.Client
) -> None:
    running = client.responses.create(model=MODEL, input="Hi", background=True)

    def follow(previous: str) -> dict[str, Any]:
        error = refused(http.post("/v1/responses", json={**BODY, "previous_response_id": previous}))
        assert error["param"] == "previous_response_id"
        return error

    assert follow(running.id)["code"] == "previous_response_not_finished"
    job = api.worker.claim(running.id)
    api.worker.fail(job, JobError("invalid_image", "No picture"))
    error = follow(running.id)
    assert error["code"] == "previous_response_failed" and "No picture" in error["message"]
    assert follow("resp_unknown")["code"] == "previous_response_not_found"
    assert follow("resp_\u0000")["code"] == "invalid_value"
    with api.worker.serving():
        unstored = client.responses.create(model=MODEL, input="Hi", store=False)
    assert follow(unstored.id)["code"] == "previous_response_not_found"
    chat = http.post("/v1/jobs", json={"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).json()["id"]
    http.post(f"/v1/jobs/{chat}/cancel")
    assert follow(chat)["code"] == "previous_response_not_found"


def test_responses_of_another_tenant_do_not_exist(services: Services, tmp_path: Path) -> None:
    with (
        fresh_database(services) as database_url,
        served(settings_for(database_url, services.redis_url, fresh_prefix(), tmp_path)) as api,
    ):
        database = Database(database_url)
        (_, mine), (_, theirs) = (PostgresApiKeys(database).create(tenant, "test") for tenant in ("one", "two"))
        database.close()
        with (
            openai.OpenAI(base_url=f"{api.url}/v1", api_key=mine, max_retries=0) as owner,
            openai.OpenAI(base_url=f"{api.url}/v1", api_key=theirs, max_retries=0) as other,
        ):
            made = owner.responses.create(model=MODEL, input="Hi", background=True)
            assert owner.responses.cancel(made.id).status == "cancelled"
            for call in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
                with pytest.raises(openai.NotFoundError):
                    call(made.id)
            with pytest.raises(openai.NotFoundError):
                other.responses.retrieve(made.id, stream=True)
            with pytest.raises(openai.BadRequestError) as caught:
                other.responses.create(model=MODEL, input="Hi", previous_response_id=made.id)
            assert caught.value.code == "previous_response_not_found"


def test_conversation_that_is_too_large_as_a_whole_is_refused(api: ServedApi, http: httpx2.Client) -> None:
    picture = {"type": "input_image", "image_url": PIXEL}
    with api.worker.serving():
        first = http.post("/v1/responses", json={**BODY, **content(*[picture] * 20)}).json()["id"]
    body = {**BODY, **content(*[picture] * 13), "previous_response_id": first}
    assert re.search("go(es)? before it have 33 images", refused(http.post("/v1/responses", json=body))["message"])
