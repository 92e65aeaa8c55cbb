"""Events: what they are called, and the bytes that tell them.

Names and payload are OpenAI's, so that receivers written for it work; `job.*` is our own and told to those who ask.
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec

RESPONSE_EVENTS = ("response.completed", "response.failed", "response.cancelled", "response.incomplete")
BATCH_EVENTS = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
JOB_EVENTS = ("job.completed", "job.failed", "job.cancelled", "job.incomplete")
EVENT_TYPES = RESPONSE_EVENTS + BATCH_EVENTS + JOB_EVENTS
"""Everything that happens here. OpenAI has more, which would never come."""


@dataclass(frozen=True, slots=True)
class Event:
    """`id` is the `webhook-id` of every delivery of the event; `subject` the id of the job or batch that ended."""

    id: str
    type: str
    subject: str
    created_at: datetime

    def payload(self) -> bytes:
        """The same bytes at every try: what happened, and the id under which to read the rest."""
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": "event",
                "created_at": int(self.created_at.timestamp()),
                "type": self.type,
                "data": {"id": self.subject},
            }
        )
