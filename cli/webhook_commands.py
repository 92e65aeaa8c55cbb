"""`vlmq webhooks`: a tenant's endpoints, deliveries and signing secret, asked for over HTTP."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cli import server
from cli.client import Json
from cli.errors import CommandError
from cli.terminal import console, errors, printable
from cli.webhook_client import Webhooks

app = typer.Typer(help="Webhook endpoints, deliveries and the signing secret.", no_args_is_help=True)
endpoints = typer.Typer(help="List, create, delete and enable endpoints.", no_args_is_help=True)
deliveries = typer.Typer(help="List, show and replay deliveries.", no_args_is_help=True)
secret = typer.Typer(help="What signs for jobs that brought a URL without a secret.", no_args_is_help=True)
app.add_typer(endpoints, name="endpoints")
app.add_typer(deliveries, name="deliveries")
app.add_typer(secret, name="secret")

USUAL = ["response.completed", "response.incomplete", "response.failed", "response.cancelled", "batch.completed"]
COLOURS = {"enabled": "green", "delivered": "green", "disabled": "red", "failed": "red", "held": "yellow"}

EndpointId = Annotated[str, typer.Argument(metavar="ID")]
DeliveryId = Annotated[str, typer.Argument(metavar="ID")]


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="webhooks")


@endpoints.command("list")
def list_endpoints(url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """List endpoints, those that are switched off too."""
    with _webhooks(url, key) as webhooks:
        found = webhooks.endpoints()
    if not found:
        console.print("no endpoints")
        return
    _show_table(("id", "name", "url", "secret", "state", "events"), [_endpoint_row(each) for each in found])


@endpoints.command("create")
def create_endpoint(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    name: Annotated[str, typer.Option(help="For people only.")] = "webhook",
    event: Annotated[
        list[str] | None, typer.Option("-e", "--event", help=f"May be repeated. Default: {', '.join(USUAL)}.")
    ] = None,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """Register an endpoint and print its signing secret, which is shown this once."""
    with _webhooks(url, key) as webhooks:
        made = webhooks.create(name, target, event or USUAL)
    errors.print(f"[dim]{made['id']}; its secret is not shown again:[/dim]")
    console.print(made["signing_secret"], soft_wrap=True)


@endpoints.command("delete")
def delete_endpoint(endpoint_id: EndpointId, url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """Remove an endpoint and its deliveries."""
    with _webhooks(url, key) as webhooks:
        console.print(f"{webhooks.delete(endpoint_id)['id']} is deleted")


@endpoints.command("enable")
def enable_endpoint(endpoint_id: EndpointId, url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """Switch an endpoint on again; what waited meanwhile is sent at once."""
    with _webhooks(url, key) as webhooks:
        enabled = webhooks.enable(endpoint_id)
    console.print(f"{enabled['id']} is {_coloured(enabled['status'])}")


@deliveries.command("list")
def list_deliveries(
    endpoint: Annotated[str, typer.Option(metavar="ID", help="Only this endpoint's.")] = "",
    subject: Annotated[str, typer.Option(metavar="ID", help="Only those that tell of this job or batch.")] = "",
    status: Annotated[str, typer.Option(help="pending, held, delivered or failed.")] = "",
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100, help="How many.")] = 20,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """List the newest deliveries."""
    if endpoint and subject:
        raise CommandError("--endpoint and --subject exclude each other", code=2)
    given = {"subject": subject, "status": status}
    filters: dict[str, Any] = {name: value for name, value in given.items() if value}
    with _webhooks(url, key) as webhooks:
        found = webhooks.deliveries(endpoint, {"limit": limit, **filters})
    if not found:
        console.print("no deliveries")
        return
    _show_table(("id", "event", "of", "state", "tries", "last answer"), [_delivery_row(each) for each in found])


@deliveries.command("show")
def show_delivery(delivery_id: DeliveryId, url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """Show one with all its tries."""
    with _webhooks(url, key) as webhooks:
        _show(webhooks.delivery(delivery_id))


@deliveries.command("replay")
def replay_delivery(delivery_id: DeliveryId, url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """Send one again now, under the same webhook-id."""
    with _webhooks(url, key) as webhooks:
        _show(webhooks.replay(delivery_id))


@deliveries.command("replay-since")
def replay_since(
    endpoint_id: EndpointId,
    since: Annotated[str, typer.Argument(metavar="INSTANT", help="ISO 8601; without an offset: local time.")],
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """Send everything of an endpoint again that happened since an instant."""
    try:
        instant = datetime.fromisoformat(since).astimezone()
    except (ValueError, OverflowError) as exc:
        raise CommandError(f"{since!r} is no instant such as 2026-01-31T12:00", code=2) from exc
    with _webhooks(url, key) as webhooks:
        count = webhooks.replay_since(endpoint_id, instant.isoformat())
    console.print(f"{count} deliveries are due again")


@secret.command("show")
def show_secret(url: server.UrlOption = "", key: server.KeyOption = "") -> None:
    """Show when it was made, and its last characters."""
    with _webhooks(url, key) as webhooks:
        found = webhooks.secret()
    console.print(f"{escape(found['signing_secret_hint'])}  since {_clock(found['updated_at'])}")


@secret.command("rotate")
def rotate_secret(
    keep_old: Annotated[bool, typer.Option("--keep-old", help="The old one signs for 24 h more.")] = False,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """Make a new one and print it, which is done this once."""
    with _webhooks(url, key) as webhooks:
        made = webhooks.rotate_secret(keep_old)
    old = "the old secret signs for 24 h more" if keep_old else "the old secret signs no more"
    errors.print(f"[dim]{old}; the new one is not shown again:[/dim]")
    console.print(made["signing_secret"], soft_wrap=True)


@contextmanager
def _webhooks(url: str, key: str) -> Iterator[Webhooks]:
    with server.client(url, key) as client:
        yield Webhooks(client)


def _show_table(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _endpoint_row(endpoint: Json) -> tuple[str, ...]:
    reason = f": {_text(endpoint['disabled_reason'])}" if endpoint["disabled_reason"] else ""
    return (
        endpoint["id"],
        _text(endpoint["name"]),
        _text(endpoint["url"]),
        escape(endpoint["signing_secret_hint"]),
        _coloured(endpoint["status"]) + reason,
        ", ".join(endpoint["event_types"]),
    )


def _delivery_row(delivery: Json) -> tuple[str, ...]:
    tries = delivery["attempts"]
    event = delivery["event"]
    last = _said(tries[-1]) if tries else ""
    return delivery["id"], event["type"], event["data"]["id"], _coloured(delivery["status"]), str(len(tries)), last


def _show(delivery: Json) -> None:
    event = delivery["event"]
    console.print(f"[bold]{delivery['id']}[/bold]  {_coloured(delivery['status'])}", soft_wrap=True)
    console.print(f"  event      {event['id']}  {event['type']} of {event['data']['id']}", soft_wrap=True)
    console.print(f"  to         {_text(delivery['url'] or delivery['webhook_endpoint_id'])}", soft_wrap=True)
    if delivery["next_attempt_at"] is not None:
        console.print(f"  next try   {_clock(delivery['next_attempt_at'])}")
    for each in delivery["attempts"]:
        console.print(f"  try {each['number']:<6} {_clock(each['started_at'])}  {_said(each)}", soft_wrap=True)


def _said(attempt: Json) -> str:
    if attempt["ended_at"] is None:
        return "under way, or lost"
    return _text(attempt["detail"] or f"answered {attempt['status_code']}")


def _text(words: str) -> str:
    return escape(printable(words))


def _clock(instant: float) -> str:
    return datetime.fromtimestamp(instant).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _coloured(status: str) -> str:
    colour = COLOURS.get(status, "white")
    return f"[{colour}]{status}[/{colour}]"
