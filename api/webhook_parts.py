"""What the routes of webhooks use, put together from settings. Wiring only."""

from dataclasses import dataclass

from api.threads import Threads
from jobs.database import Database
from jobs.webhooks.delivery_store import PostgresDeliveries
from jobs.webhooks.destination import Destinations
from jobs.webhooks.endpoint_store import PostgresWebhookEndpoints
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings

SAMPLES_AT_ONCE = 4
"""Sample events that a process sends at once: each may wait for its receiver until its time is over."""


@dataclass(frozen=True, slots=True)
class WebhookParts:
    """`threads` are for what waits for receivers."""

    endpoints: PostgresWebhookEndpoints
    deliveries: PostgresDeliveries
    destinations: Destinations
    sender: Sender
    threads: Threads


def webhook_parts(database: Database, settings: WebhookSettings, destinations: Destinations) -> WebhookParts:
    return WebhookParts(
        endpoints=PostgresWebhookEndpoints(database, settings.max_endpoints),
        deliveries=PostgresDeliveries(database),
        destinations=destinations,
        sender=Sender(destinations, settings.timeout_s),
        threads=Threads(SAMPLES_AT_ONCE),
    )
