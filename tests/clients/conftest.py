"""The live server, and the official client as anybody makes it."""

from collections.abc import Iterator

import openai
import pytest

from tests.clients import live as lives
from tests.clients.live import Live


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    if (told := lives.given()) is not None:
        yield told
        return
    services, model = request.getfixturevalue("services"), request.getfixturevalue("tiny_model")
    with lives.started(services, model, tmp_path_factory.mktemp("live")) as it:
        yield it


@pytest.fixture
def client(live: Live) -> Iterator[openai.OpenAI]:
    """Of the first tenant. It repeats nothing by itself, so that a test sees every answer."""
    with openai.OpenAI(base_url=live.base_url, api_key=live.key, max_retries=0) as it:
        yield it


@pytest.fixture
def stranger(live: Live) -> Iterator[openai.OpenAI]:
    """Of the second tenant."""
    with openai.OpenAI(base_url=live.base_url, api_key=live.other_key, max_retries=0) as it:
        yield it
