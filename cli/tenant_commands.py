"""`vlmq tenants`: who gets how much of the workers when several wait. Talks to the database itself, as `vlmq keys`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.errors import CommandError
from cli.installation import FolderOption, database
from cli.terminal import console

if TYPE_CHECKING:
    from jobs.keys import ApiKey
    from jobs.tenants import NamedTenant

app = typer.Typer(help="List tenants and set their shares.", no_args_is_help=True)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="tenants")


@app.command("list")
def list_tenants(folder: FolderOption = None) -> None:
    """List every tenant that has a key, or a weight of its own."""
    from jobs import connect

    with database(folder, "tenants") as opened:
        keys, weighted = connect.api_keys(opened).list(), connect.tenants(opened).list()
    if not keys and not weighted:
        console.print("no tenants: everybody is the same one until there are keys")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("tenant", "weight", "keys"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in _rows(keys, weighted):
        table.add_row(*row)
    console.print(table)


@app.command("set")
def set_tenant(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    weight: Annotated[float, typer.Option(help="Its share when several wait: 2 gets twice what 1 gets.")],
    folder: FolderOption = None,
) -> None:
    """Set the weight by which a tenant shares the workers with others; counts from the next job on."""
    from jobs import connect

    with database(folder, "tenants") as opened:
        try:
            tenant = connect.tenants(opened).set(name, weight)
        except ValueError as exc:
            raise CommandError(str(exc), code=2) from exc
    console.print(f"{escape(tenant.name)} has the weight {tenant.weight:g}")


def _rows(keys: "list[ApiKey]", weighted: "list[NamedTenant]") -> list[tuple[str, ...]]:
    from jobs.tenants import DEFAULT_WEIGHT

    weights = {tenant.name: tenant.weight for tenant in weighted}
    names = sorted({key.tenant for key in keys} | weights.keys())
    valid = [key.tenant for key in keys if key.revoked_at is None]
    return [(escape(name), f"{weights.get(name, DEFAULT_WEIGHT):g}", str(valid.count(name))) for name in names]
