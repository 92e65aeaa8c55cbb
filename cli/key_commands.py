"""`vlmq keys`: who may come in. Talks to the database itself, since without a key nobody may ask the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.errors import CommandError
from cli.folder import Folder
from cli.settings import CommandSettings
from cli.terminal import console, errors
from jobs.job import DEFAULT_TENANT
from jobs.settings import ServiceSettings, load

if TYPE_CHECKING:
    from jobs.keys import ApiKey, ApiKeys

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

FolderOption = Annotated[Path | None, typer.Option(help="The installation, when VLMQ_DATABASE_URL is not set.")]


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="keys")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; for people only.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs it may see.")] = DEFAULT_TENANT,
    folder: FolderOption = None,
) -> None:
    """Make a key and print its secret, which is shown this once. From the first key on, nobody comes in without."""
    with _keys(folder) as keys:
        key, secret = keys.create(tenant, name)
    errors.print(f"[dim]{key.id} for tenant {escape(tenant)}; the secret is not shown again:[/dim]")
    console.print(secret)


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, folder: FolderOption = None
) -> None:
    """List keys, revoked ones too."""
    with _keys(folder) as keys:
        found = keys.list(tenant)
    if not found:
        console.print("no keys: only this machine may ask, and needs none")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("id", "tenant", "name", "secret", "made", "state"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for key in found:
        table.add_row(*_row(key))
    console.print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], folder: FolderOption = None) -> None:
    """Revoke a key; within seconds it opens nothing."""
    with _keys(folder) as keys:
        console.print(f"{keys.revoke(key_id).id} is revoked")


def _row(key: "ApiKey") -> tuple[str, ...]:
    state = "revoked" if key.revoked_at else "[green]valid[/green]"
    made = key.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return key.id, escape(key.tenant), escape(key.name), f"…{escape(key.hint)}", made, state


@contextmanager
def _keys(folder: Path | None) -> Iterator["ApiKeys"]:
    """The keys of the database that the environment names, or of the running installation in the folder."""
    # Late: drivers take a second to import, which every other command would wait for too.
    from jobs import connect

    settings = load(ServiceSettings)
    if folder is not None or not settings.database_url:
        place = Folder(folder or load(CommandSettings).folder)
        running = place.running()
        if running is None:
            raise CommandError(
                f"nothing runs in {place.path}, so there is no database to keep keys in",
                "start it with `vlmq up`, or set VLMQ_DATABASE_URL",
            )
        settings = settings.model_copy(update={"database_url": running.database_url})
    database = connect.database(settings, pool_size=1)
    try:
        yield connect.api_keys(database)
    finally:
        database.close()
