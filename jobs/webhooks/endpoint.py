"""Values of registered endpoints and of signing secrets. No storage."""

from dataclasses import dataclass
from datetime import datetime

from jobs.webhooks.signature import hint_of


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`secret` is shown where it was just made and nowhere else. `disabled_because` is set while it is switched off."""

    id: str
    tenant: str
    name: str
    url: str
    event_types: tuple[str, ...]
    secret: str
    created_at: datetime
    updated_at: datetime
    failing_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_because: str | None = None

    @property
    def hint(self) -> str:
        return hint_of(self.secret)

    def __repr__(self) -> str:
        return f"Endpoint({self.id})"


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What is None stays."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[str, ...] | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class TenantSecret:
    """What signs the deliveries of jobs that brought a URL and no secret of their own."""

    tenant: str
    secret: str
    created_at: datetime
    updated_at: datetime

    @property
    def hint(self) -> str:
        return hint_of(self.secret)

    def __repr__(self) -> str:
        return f"TenantSecret({self.tenant})"
