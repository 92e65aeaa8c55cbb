"""What a version of the official client cannot ask for, by name. A test of such a feature skips where this says so,
and fails when the version can do it after all."""

import openai
import pytest

LACKING: dict[str, frozenset[str]] = {
    "1.109.1": frozenset({"responses.input_tokens", "webhooks.create", "webhooks.event_types"}),
}


def needs(client: openai.OpenAI, feature: str) -> None:
    """`feature`: the client's attribute, as `responses.input_tokens`."""
    there = _has(client, feature)
    named = feature in LACKING.get(openai.__version__, frozenset())
    assert there != named, f"openai {openai.__version__}: {feature} is {'there' if there else 'lacking and not named'}"
    if not there:
        pytest.skip(f"openai {openai.__version__} lacks {feature}")


def _has(client: object, feature: str) -> bool:
    for name in feature.split("."):
        if not hasattr(client, name):
            return False
        client = getattr(client, name)
    return True
