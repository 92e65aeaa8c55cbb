"""`vlmq jobs` and `vlmq models`: look at jobs, cancel them, give dead letters back; which models there are."""

from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from cli import server
from cli.asking import waiting
from cli.client import Client, Json, Refused
from cli.errors import CommandError
from cli.terminal import console, printable
from jobs.settings import CONF
from worker.settings import ModelSettings

COLOURS = {"completed": "green", "incomplete": "green", "failed": "red", "cancelled": "yellow", "in_progress": "cyan"}
STEPS = (
    ("queued", "queued_at"),
    ("claimed", "claimed_at"),
    ("prepared", "prepared_at"),
    ("first token", "first_token_at"),
    ("done", "done_at"),
)


def add_to(app: typer.Typer) -> None:
    app.command()(jobs)
    app.command()(models)


def jobs(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID | show ID | cancel ID | requeue ID]", help="Nothing: list the newest."),
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Only those that wait to be given back; with requeue: all of them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Give all of them back without asking.")] = False,
    status: Annotated[str, typer.Option(help="Only those of this status.")] = "",
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100, help="How many to look at.")] = 20,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """List jobs, show one with its timeline and attempts, cancel one, or give dead ones back."""
    client = server.client(url, key)
    match words or []:
        case []:
            _list(client, dead, status, limit)
        case ["cancel", job_id]:
            show(client.cancel(job_id))
        case ["requeue", job_id]:
            show(client.requeue(job_id))
        case ["requeue"] if dead:
            _requeue_dead(client, yes)
        case ["show", job_id]:
            show(client.job(job_id))
        case [job_id] if job_id not in ("show", "cancel", "requeue"):
            show(client.job(job_id))
        case other:
            raise CommandError(
                f"vlmq jobs does not understand {' '.join(other)!r}",
                "vlmq jobs [ID | show ID | cancel ID | requeue ID | requeue --dead]",
                code=2,
            )


def models(
    served: Annotated[bool, typer.Option("--served", help="Only the names that the server serves now.")] = False,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """List the models of conf/models and whether their checkpoints are here, or those that the server serves."""
    if not served:
        _list_known()
        return
    for model in server.client(url, key).models():
        console.print(model["id"])


def _list_known() -> None:
    for file in sorted((CONF / "models").glob("*.toml"), key=lambda file: file.stem.lower()):
        path = ModelSettings.load(file.stem).path
        state = "[green]here[/green]  " if (path / "config.json").exists() else "[dim]absent[/dim]"
        place = path.relative_to(CONF.parent) if path.is_relative_to(CONF.parent) else path
        console.print(f"{file.stem:<18} {state}  {escape(str(place))}")


def _list(client: Client, dead: bool, status: str, limit: int) -> None:
    if dead and status not in ("", "failed"):
        raise CommandError(f"--dead and --status {status} exclude each other: the dead are failed", code=2)
    found = client.jobs(limit=limit, **({"status": status} if status else {}), **({"dead": "true"} if dead else {}))
    if not found:
        console.print("no dead jobs" if dead else "no jobs")
    for job in found:
        console.print(_line(job))
        if dead:
            _show_attempts(client.job(job["id"]))


def _requeue_dead(client: Client, yes: bool) -> None:
    """All of them, oldest first. One that somebody else gives back or deletes meanwhile is not in the way."""
    ids: list[str] = []
    while page := client.jobs(dead="true", order="asc", limit=100, **({"after": ids[-1]} if ids else {})):
        ids += [job["id"] for job in page]
    if not ids:
        console.print("no dead jobs")
    elif not yes and not typer.confirm(f"Give {len(ids)} dead jobs back?"):
        raise CommandError("nothing was given back", "--yes gives them back without asking")
    for job_id in ids:
        try:
            console.print(f"{job_id}  {_coloured(client.requeue(job_id)['status'])}")
        except Refused as exc:
            console.print(f"{job_id}  stays: {escape(str(exc))}")


def _line(job: Json) -> str:
    """Columns of a fixed width, the id whole, and as much of the answer as the terminal has room for."""
    times = job["timeline"]
    took = f"{times['done_at'] - times['queued_at']:.2f} s" if times["done_at"] else ""
    tokens = f"{job['usage']['completion_tokens']} tok" if job["usage"] else ""
    answer = " ".join((job["error"]["message"] if job["error"] else job["output"]).split())
    room = max(console.width - 78, 12) if console.is_terminal else 60
    status = f"{_coloured(job['status'])}{' ' * (12 - len(job['status']))}"
    return (
        f"{job['id']}  {status}{_clock(times['queued_at'])} {took:>9} {tokens:>8}  {escape(printable(answer[:room]))}"
    )


def show(job: Json) -> None:
    """One job: status, timeline, attempts, answer."""
    console.print(f"[bold]{job['id']}[/bold]  {_coloured(job['status'])}  {job['model']}  {job['priority']}")
    if job["queue_position"] is not None:
        console.print(f"  {waiting(job['queue_position'], job['eta_s'])}")
    if job["error"]:
        console.print(f"  error      {job['error']['code']}: {escape(job['error']['message'])}")
    if job["usage"]:
        usage = job["usage"]
        console.print(f"  tokens     {usage['prompt_tokens']} prompt, {usage['completion_tokens']} answer")
    console.print(f"  timeline   {timeline(job)}")
    _show_attempts(job)
    if job["output"]:
        console.print(f"\n{escape(printable(job['output']))}")


def _show_attempts(job: Json) -> None:
    """Who ran it, from when on and for how long, how many tokens the job had then, and why it ended."""
    for attempt in job["attempts"] or []:
        started, ended = attempt["started_at"], attempt["ended_at"]
        lasted = "" if ended is None else f" +{ended - started:.3f} s, {attempt['tokens']} tokens"
        detail = f" ({escape(attempt['detail'])})" if attempt["detail"] else ""
        console.print(
            f"  attempt {attempt['number']}  {attempt['end'] or 'running'}{detail} on {escape(attempt['worker'])}, "
            f"{_clock(started)}{lasted}"
        )


def timeline(job: Json) -> str:
    """The instants of a job's life: the first by the clock, the others from there on."""
    times = job["timeline"]
    start = times["queued_at"]
    later = [f"{name} +{times[key] - start:.3f} s" for name, key in STEPS[1:] if times[key] is not None]
    return " → ".join([f"queued {_clock(start)}", *later])


def _clock(instant: float) -> str:
    return datetime.fromtimestamp(instant).astimezone().strftime("%H:%M:%S")


def _coloured(status: str) -> str:
    colour = COLOURS.get(status, "white")
    return f"[{colour}]{status}[/{colour}]"
