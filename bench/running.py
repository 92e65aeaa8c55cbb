"""The system that is measured: the embedded services, API and maintenance; the bench starts the workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.services import Services
from jobs.schema import migrate
from jobs.settings import ServiceSettings
from tests.acceptance.system import MODEL, System, system


@contextmanager
def running_system(checkpoint: Path, folder: Path, **environment: str) -> Iterator[System]:
    with Services(folder / "services") as services:
        migrate(services.database_url)
        settings = ServiceSettings(
            database_url=services.database_url,
            redis_url=services.redis_url,
            blob_url=str(folder / "blobs"),
            models=(MODEL,),
        )
        own = {"VLMQ_WORKER_PATH": str(checkpoint), "VLMQ_WORKER_MODEL": MODEL}
        with system(settings, folder, **own, **environment) as it:
            it.start_api()
            it.start_maintenance()
            yield it
