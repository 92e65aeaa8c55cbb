"""`vlmq keys`: who may come in, and how much they may ask for. Talks to the database itself, since without a key nobody
may ask the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cli.errors import CommandError
from cli.installation import FolderOption, database
from cli.terminal import console, errors
from jobs.job import DEFAULT_TENANT

if TYPE_CHECKING:
    from jobs.keys import ApiKey, ApiKeys
    from jobs.limits import KeyLimits

app = typer.Typer(help="Make, list, limit, rotate and revoke API keys.", no_args_is_help=True)

NONE = "none"
MOST = 2**31 - 1

KeyId = Annotated[str, typer.Argument(metavar="ID")]
LimitOption = str | None
Requests = Annotated[LimitOption, typer.Option("--requests-per-minute", metavar="N", help="Requests that make jobs.")]
Tokens = Annotated[
    LimitOption,
    typer.Option("--tokens-per-minute", metavar="N", help="Text and visual tokens, of prompts and answers."),
]
Queued = Annotated[LimitOption, typer.Option("--queued-jobs", metavar="N", help="Jobs that wait at a time.")]
InFlight = Annotated[
    LimitOption, typer.Option("--jobs-in-flight", metavar="N", help="Jobs that wait or run at a time.")
]


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="keys")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; for people only.")],
    tenant: Annotated[str, typer.Option(help="Whose jobs it may see.")] = DEFAULT_TENANT,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    queued_jobs: Queued = None,
    jobs_in_flight: InFlight = None,
    folder: FolderOption = None,
) -> None:
    """Make a key and print its secret, which is shown this once. From the first key on, nobody comes in without."""
    if not tenant:
        raise CommandError("--tenant is empty: a tenant has a name", code=2)
    given = _given(requests_per_minute, tokens_per_minute, queued_jobs, jobs_in_flight)
    with _keys(folder) as keys:
        key, secret = keys.create(tenant, name, _only(given))
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
    for column in ("id", "tenant", "name", "secret", "made", "state", "limits"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for key in found:
        table.add_row(*_row(key))
    console.print(table)


@app.command()
def limit(
    key_id: KeyId,
    requests_per_minute: Requests = None,
    tokens_per_minute: Tokens = None,
    queued_jobs: Queued = None,
    jobs_in_flight: InFlight = None,
    folder: FolderOption = None,
) -> None:
    """Change limits of a key; `none` takes one away, and what is not named stays. Counts within seconds."""
    given = _given(requests_per_minute, tokens_per_minute, queued_jobs, jobs_in_flight)
    if not given:
        raise CommandError("no limit was named", "vlmq keys limit ID --requests-per-minute 60", code=2)
    with _keys(folder) as keys:
        key = keys.limit(key_id, replace(keys.get(key_id).limits, **given))
    console.print(f"{key.id}: {_limits(key.limits)}")


@app.command()
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=24 * 365, help="How long the old secret opens the door too.")
    ] = 24.0,
    folder: FolderOption = None,
) -> None:
    """Give a key a new secret and print it; the old one goes on for a while, so that clients can change over."""
    with _keys(folder) as keys:
        key, secret = keys.rotate(key_id, overlap_hours * 3600)
    until = f"opens the door for {overlap_hours:g} h more" if overlap_hours else "opens nothing within seconds"
    errors.print(
        f"[dim]{key.id} for tenant {escape(key.tenant)}; the old secret {until}, the new one is not shown again:[/dim]"
    )
    console.print(secret)


@app.command()
def revoke(key_id: KeyId, folder: FolderOption = None) -> None:
    """Revoke a key; within seconds it opens nothing."""
    with _keys(folder) as keys:
        console.print(f"{keys.revoke(key_id).id} is revoked")


def _given(
    requests: LimitOption, tokens: LimitOption, queued: LimitOption, in_flight: LimitOption
) -> dict[str, int | None]:
    """The limits that were named, by the names that KeyLimits has for them. Raises CommandError."""
    options = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "queued_jobs": queued,
        "jobs_in_flight": in_flight,
    }
    return {name: _number(name, value) for name, value in options.items() if value is not None}


def _number(name: str, value: str) -> int | None:
    if value == NONE:
        return None
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MOST):
        option = f"--{name.replace('_', '-')}"
        raise CommandError(f"{option} {value!r}: must be a whole number from 1 to {MOST}, or {NONE!r}", code=2)
    return int(value)


def _only(given: dict[str, int | None]) -> "KeyLimits":
    from jobs.limits import KeyLimits

    return KeyLimits(**given)


def _row(key: "ApiKey") -> tuple[str, ...]:
    made = key.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
    secret = f"…{escape(key.hint)}"
    return key.id, escape(key.tenant), escape(key.name), secret, made, _state(key), _limits(key.limits)


def _state(key: "ApiKey") -> str:
    if key.revoked_at:
        return "revoked"
    if key.old_secret_until is not None and key.old_secret_until > datetime.now(UTC):
        return f"[green]valid[/green], old secret until {key.old_secret_until.astimezone().strftime('%m-%d %H:%M')}"
    return "[green]valid[/green]"


def _limits(limits: "KeyLimits") -> str:
    each = ((field.name, getattr(limits, field.name)) for field in fields(limits))
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in each if value is not None) or NONE


@contextmanager
def _keys(folder: Path | None) -> Iterator["ApiKeys"]:
    from jobs import connect

    with database(folder, "keys") as opened:
        yield connect.api_keys(opened)
