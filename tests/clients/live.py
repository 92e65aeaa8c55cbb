"""One live server for the client suites: real processes, two tenants' keys. A suite that another pytest runs finds
the same server through the environment."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.services import Services
from tests.acceptance.system import System, system
from tests.fixtures.services import fresh_database, fresh_prefix, settings_for

VARIABLE = "VLMQ_TEST_LIVE"


@dataclass(frozen=True, slots=True)
class Live:
    """Where it listens, and the secrets of two tenants."""

    url: str
    key: str
    other_key: str

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}


def given() -> Live | None:
    """The server that the environment names."""
    told = os.environ.get(VARIABLE)
    return Live(**json.loads(told)) if told else None


@contextmanager
def started(services: Services, model: Path, folder: Path) -> Iterator[Live]:
    """Every process of the system, with keys. Receivers of webhooks may be on this machine."""
    with fresh_database(services) as url:
        settings = settings_for(url, services.redis_url, fresh_prefix(), folder)
        here = {"VLMQ_WORKER_PATH": str(model), "VLMQ_WEBHOOKS_ALLOWED_HOSTS": "127.0.0.1"}
        with system(settings, folder, **here) as it:
            first, second = it.key("acme"), it.key("umbrella")
            _start(it)
            yield Live(it.url, first, second)


def _start(it: System) -> None:
    it.start_api()
    it.start_maintenance()
    it.start_batches()
    it.start_deliveries()
    it.start_worker()
