"""Every refusal as the exception class that the official client has for it."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.clients.suite.bodies import chat

pytestmark = pytest.mark.acceptance

Call = Callable[[openai.OpenAI], Any]

REFUSED: dict[str, tuple[Call, type[openai.APIStatusError], str | None, str]] = {
    "unknown field": (
        lambda it: it.chat.completions.create(**chat(), extra_body={"frobnicate": 1}),
        openai.BadRequestError,
        "frobnicate",
        "unknown_parameter",
    ),
    "value out of range": (
        lambda it: it.chat.completions.create(**chat() | {"temperature": 3}),
        openai.BadRequestError,
        "temperature",
        "invalid_value",
    ),
    "unknown model": (
        lambda it: it.chat.completions.create(**chat() | {"model": "gpt-17"}),
        openai.NotFoundError,
        "model",
        "model_not_found",
    ),
    "unknown model read": (lambda it: it.models.retrieve("gpt-17"), openai.NotFoundError, "model", "model_not_found"),
    "unknown path": (lambda it: it.embeddings.create(model="x", input="y"), openai.NotFoundError, None, "unknown_url"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_is_the_clients_own_exception(client: openai.OpenAI, case: str) -> None:
    call, kind, param, code = REFUSED[case]
    with pytest.raises(kind) as refused:
        call(client)
    assert type(refused.value) is kind
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id


def test_wrong_key_is_an_authentication_error(client: openai.OpenAI) -> None:
    with client.with_options(api_key="wrong") as other, pytest.raises(openai.AuthenticationError) as refused:
        other.models.list()
    assert (refused.value.code, refused.value.status_code) == ("invalid_api_key", 401)
    assert refused.value.request_id


def test_bad_picture_is_a_bad_request_by_its_code(client: openai.OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**chat() | {"messages": [{"role": "user", "content": [part]}]})
    assert refused.value.code == "invalid_image"
    assert refused.value.request_id
