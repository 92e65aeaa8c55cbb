"""The database that a command works on: the one that the environment names, or the running installation's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CommandError
from cli.folder import Folder
from cli.settings import CommandSettings
from jobs.settings import ServiceSettings, load

if TYPE_CHECKING:
    from jobs.database import Database

FolderOption = Annotated[Path | None, typer.Option(help="The installation, when VLMQ_DATABASE_URL is not set.")]


@contextmanager
def database(folder: Path | None, what: str) -> Iterator["Database"]:
    """Open while the context lasts. `what` is kept there, for the error. Raises CommandError."""
    # Late: drivers take a second to import, which every other command would wait for too.
    from jobs import connect

    settings = load(ServiceSettings)
    if folder is not None or not settings.database_url:
        place = Folder(folder or load(CommandSettings).folder)
        running = place.running()
        if running is None:
            raise CommandError(
                f"nothing runs in {place.path}, so there is no database to keep {what} in",
                "start it with `vlmq up`, or set VLMQ_DATABASE_URL",
            )
        settings = settings.model_copy(update={"database_url": running.database_url})
    opened = connect.database(settings, pool_size=1)
    try:
        yield opened
    finally:
        opened.close()
