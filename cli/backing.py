"""PostgreSQL, Redis and the blob store behind an installation: those that the environment names, or embedded ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli import guard
from cli.errors import CommandError
from cli.folder import Folder
from cli.plan import Services
from cli.settings import ROOT
from cli.terminal import step
from jobs.settings import ServiceSettings, SettingsError, load

if TYPE_CHECKING:
    from cli import services as embedding


@dataclass(frozen=True, slots=True)
class Backing:
    """`embedded` None: somebody else looks after them."""

    services: Services
    embedded: "embedding.Services | None" = None

    def revive(self, report: Callable[[str, str], None]) -> None:
        """Starts an embedded server again that has died. Raises CommandError when it cannot."""
        if self.embedded is None:
            return
        for server in (self.embedded.postgres, self.embedded.valkey):
            if not server.process.running:
                report(server.folder.name, f"died; starts again (log: {server.process.log})")
                with _as_command_error():
                    server.start()


@contextmanager
def backing(folder: Folder) -> Iterator[Backing]:
    """Embedded servers run for as long as the context lasts. Raises CommandError, SettingsError."""
    given = load(ServiceSettings)
    blobs = given.blob_url if "blob_url" in given.model_fields_set else str(folder.blobs)
    if given.database_url and given.redis_url:
        yield Backing(Services(given.database_url, given.redis_url, blobs))
        return
    if given.database_url or given.redis_url:
        raise SettingsError("VLMQ_DATABASE_URL and VLMQ_REDIS_URL: set both, or neither for the embedded services")
    # Late: an installation with services of its own does without the packages of the embedded ones.
    from cli import services as embedding

    embedded = embedding.Services(folder.path / "services")
    with guard.guarded(embedded.folder, ROOT):
        with step("starting PostgreSQL and Valkey"), _as_command_error():
            embedded.start()
        try:
            yield Backing(Services(embedded.database_url, embedded.redis_url, blobs), embedded)
        finally:
            with step("stopping PostgreSQL and Valkey"):
                embedded.stop()


@contextmanager
def _as_command_error() -> Iterator[None]:
    from cli.services import ServicesError

    try:
        yield
    except ServicesError as exc:
        raise CommandError(str(exc)) from exc
