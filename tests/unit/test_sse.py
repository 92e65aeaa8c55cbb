"""The framing of server-sent events, read by the official client."""

import pytest
from openai._streaming import SSEDecoder

from api.sse import KEEP_ALIVE, named_event

pytestmark = pytest.mark.unit


def test_keep_alive_behind_an_event_with_an_id_is_no_event_to_the_client() -> None:
    events = [named_event("response.created", 0, {"n": 0}), named_event("response.queued", 1, {"n": 1})]
    wire = [events[0], KEEP_ALIVE, KEEP_ALIVE, events[1], KEEP_ALIVE]
    read = list(SSEDecoder().iter_bytes(iter(wire)))
    assert [(event.event, event.id, event.json()) for event in read] == [
        ("response.created", "0", {"n": 0}),
        ("response.queued", "1", {"n": 1}),
    ]
