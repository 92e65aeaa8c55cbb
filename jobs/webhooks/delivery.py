"""Values of deliveries: one event for one receiver, its tries, and what became of them. No storage."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from jobs.webhooks.event import Event


class DeliveryState(StrEnum):
    PENDING = "pending"
    """Waits for its next try, or is being tried."""
    HELD = "held"
    """Its endpoint is switched off."""
    DELIVERED = "delivered"
    FAILED = "failed"
    """All tries are used up."""


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One try. `status_code` None: there was no answer, and `detail` says why. Without `ended_at` it is under way, or
    was lost with its process."""

    number: int
    started_at: datetime
    ended_at: datetime | None
    status_code: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """`url` is that of a job's own webhook; a registered endpoint's is the endpoint's. `next_at`: of the next try,
    while it is pending."""

    id: str
    tenant: str
    endpoint_id: str | None
    url: str | None
    event: Event
    state: DeliveryState
    next_at: datetime
    attempts: tuple[DeliveryAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Errand:
    """A delivery that a deliverer has claimed. `attempt` fences what it writes; `keys` sign, the newest first."""

    delivery_id: str
    attempt: int
    url: str
    keys: tuple[str, ...]
    event: Event


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said. `status_code` None: nothing, for the reason in `detail`. `whole` is false when the
    connection broke before the answer's end: then nobody knows whether it was meant."""

    status_code: int | None
    detail: str = ""
    retry_after_s: float | None = None
    whole: bool = True

    @property
    def accepted(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300 and self.whole

    @property
    def gone(self) -> bool:
        """The receiver wants nothing more, ever."""
        return self.status_code == 410


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """`after` is a delivery's id: the page starts behind it, newest first."""

    endpoint_id: str | None = None
    subject: str | None = None
    state: DeliveryState | None = None
    event_type: str | None = None
    after: str | None = None
    limit: int = 20
