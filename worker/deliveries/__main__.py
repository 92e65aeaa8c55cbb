"""`python -m worker.deliveries`: becomes the Celery worker of the webhooks' queue."""

import os
import sys

from jobs.settings import ServiceSettings, SettingsError, load
from jobs.webhooks.bells import QUEUE
from jobs.webhooks.settings import WebhookSettings


def command(settings: WebhookSettings) -> list[str]:
    """`-E` lets Flower see tasks; mingle and gossip would only make starts slow and Redis busy."""
    return [
        *(sys.executable, "-m", "celery", "-A", "worker.deliveries.app", "worker"),
        *("-P", "threads", "-c", str(settings.threads), "-Q", QUEUE, "-E"),
        *("--without-mingle", "--without-gossip", "--loglevel", "INFO"),
        *("-n", f"deliveries-{os.getpid()}@%h"),
    ]


def main() -> None:
    """Never returns."""
    try:
        settings = load(WebhookSettings)
        load(ServiceSettings)
    except SettingsError as exc:
        sys.exit(f"deliveries: {exc}")
    os.execv(sys.executable, command(settings))


if __name__ == "__main__":
    main()
