"""Settings of webhooks, which the API, the deliverers and the maintenance process must agree on."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from jobs.settings import FileSettings, Names

DAY_S = 86400.0
SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, DAY_S)
"""The example of the Standard Webhooks specification: ten tries over three days."""


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Seconds = Annotated[tuple[Annotated[float, Field(ge=0)], ...], NoDecode, BeforeValidator(_split)]


class WebhookSettings(FileSettings):
    """Table `[webhooks]`, environment `VLMQ_WEBHOOKS_…`."""

    table: ClassVar[str] = "webhooks"
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VLMQ_WEBHOOKS_")

    allowed_hosts: Names = Field(
        default=(), description="Hosts (host or host:port) that may have private addresses, other ports and http."
    )
    ports: Names = Field(default=("443", "8443"), description="Ports that webhook URLs may name.")
    schedule_s: Seconds = Field(
        default=SCHEDULE_S, min_length=1, description="Pauses before the tries of a delivery, as many as there are."
    )
    jitter: float = Field(default=0.1, ge=0, lt=1, description="Share of a pause by which it varies at random.")
    timeout_s: float = Field(default=15.0, gt=0, description="One try, from the look-up of the host to the answer.")
    lease_s: float = Field(default=60.0, gt=0, description="Time after which a try that nobody ended counts as lost.")
    give_up_s: float = Field(
        default=3 * DAY_S, gt=0, description="How long an endpoint may fail before it is disabled."
    )
    threads: int = Field(default=16, ge=1, description="Tries at once of one delivering process.")
    per_target: int = Field(default=4, ge=1, description="Tries at once to one endpoint or host, of all processes.")
    max_endpoints: int = Field(default=20, ge=1, description="Registered endpoints of a tenant.")
    retention_s: float = Field(default=7 * DAY_S, gt=0, description="How long a delivery is kept that waits no more.")

    @model_validator(mode="after")
    def _lease_outlives_a_try(self) -> Self:
        if self.lease_s < 2 * self.timeout_s:
            raise ValueError(f"lease_s = {self.lease_s:g} is less than twice timeout_s = {self.timeout_s:g}")
        return self
