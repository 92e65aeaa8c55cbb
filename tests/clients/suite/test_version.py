"""That the suite runs under the client that it was meant to."""

import os

import openai
import pytest

pytestmark = pytest.mark.acceptance


def test_client_is_the_version_asked_for() -> None:
    wanted = os.environ.get("VLMQ_TEST_OPENAI", "3.54.0")
    assert openai.__version__ == wanted
