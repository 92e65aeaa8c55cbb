"""An operation's example: what is sent, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = "vlmq-demo"
QUESTION: dict[str, Any] = {
    "role": "user",
    "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}},
        {"type": "text", "text": "What is in the picture?"},
    ],
}


@dataclass(frozen=True, slots=True)
class Example:
    """`answers` by status: JSON, or the text of a stream. `request`: None where there is no body."""

    request: Any = None
    answers: Mapping[int, Any] = field(default_factory=dict)


Examples = Mapping[str, Example]
"""By operation: `POST /v1/jobs`."""
