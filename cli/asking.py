"""`vlmq ask` and `vlmq submit`: a question as a job; ask waits for the answer and shows it as it comes."""

import math
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.status import Status

from cli import server
from cli.asked import (
    Asked,
    Choices,
    DetailOption,
    MaxTokens,
    ModelOption,
    Pictures,
    Question,
    SchemaFile,
    Seed,
    Temperature,
    Videos,
)
from cli.client import TERMINAL, Client, Dropped, Event, Json
from cli.errors import CommandError
from cli.terminal import console, errors, printable


def add_to(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(submit)


def ask(
    question: Question,
    image: Pictures = None,
    video: Videos = None,
    detail: DetailOption = None,
    model: ModelOption = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    n: Choices = None,
    schema: SchemaFile = None,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """Ask, and show the answer token by token. Ctrl-C cancels the job."""
    asked = Asked(question, image, video, detail, model, max_tokens, temperature, seed, n, schema)
    with server.client(url, key) as client:
        job_id = str(client.submit(asked.body(client, "interactive"))["id"])
        try:
            answer = follow(client, job_id)
        except KeyboardInterrupt:
            state = client.cancel(job_id)["status"]
            errors.print(f"\n[dim]{job_id} {state}[/dim]")
            raise typer.Exit(130) from None
        job = client.job(job_id)
        show_others(job)
        conclude(job, answer)


def submit(
    question: Question,
    image: Pictures = None,
    video: Videos = None,
    detail: DetailOption = None,
    model: ModelOption = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    n: Choices = None,
    schema: SchemaFile = None,
    priority: Annotated[str | None, typer.Option(help="interactive, background or batch.")] = None,
    url: server.UrlOption = "",
    key: server.KeyOption = "",
) -> None:
    """Submit a job and print its id."""
    asked = Asked(question, image, video, detail, model, max_tokens, temperature, seed, n, schema)
    with server.client(url, key) as client:
        console.print(client.submit(asked.body(client, priority))["id"])


@dataclass(slots=True)
class Answer:
    """What a stream has brought so far: the text of the first choice, the tokens of all; `state` once it has ended."""

    text: str = ""
    tokens: int = 0
    state: str = ""
    began_at: float = field(default_factory=time.monotonic)
    first_token_s: float | None = None
    last_token_s: float = 0.0


def follow(client: Client, job_id: str) -> Answer:
    """Shows the queue position while the job waits, then writes each token to stdout as it comes. Returns at the
    job's end."""
    arrivals: queue.Queue[Event | Dropped | CommandError] = queue.Queue()
    threading.Thread(target=_listen, args=(client, job_id, arrivals), daemon=True).start()
    answer = Answer()
    with errors.status(f"{job_id} submitted …") as status:
        while not answer.state:
            try:
                arrival = arrivals.get(timeout=0.5)
            except queue.Empty:
                _show_waiting(client, job_id, answer, status)
            else:
                _take(arrival, answer, status)
    if answer.text and not answer.text.endswith("\n"):
        print(flush=True)
    return answer


def _listen(client: Client, job_id: str, arrivals: "queue.Queue[Event | Dropped | CommandError]") -> None:
    try:
        for arrival in client.events(job_id):
            arrivals.put(arrival)
    except CommandError as exc:
        arrivals.put(exc)


def _take(arrival: Event | Dropped | CommandError, answer: Answer, status: Status) -> None:
    if isinstance(arrival, CommandError):
        raise arrival
    if isinstance(arrival, Dropped):
        status.update(f"connection lost, taking it up again … ({arrival.why})")
        if answer.tokens:
            status.start()
    elif arrival.type == "job.delta":
        status.stop()
        answer.last_token_s = time.monotonic() - answer.began_at
        if answer.first_token_s is None:
            answer.first_token_s = answer.last_token_s
        answer.tokens += 1
        if arrival.data.get("index", 0) != 0:
            return
        answer.text += str(arrival.data["text"])
        sys.stdout.write(printable(str(arrival.data["text"])))
        sys.stdout.flush()
    elif arrival.type == "job.in_progress":
        status.update("reading pictures and prompt …")
    elif arrival.type.removeprefix("job.") in TERMINAL:
        answer.state = arrival.type.removeprefix("job.")


def _show_waiting(client: Client, job_id: str, answer: Answer, status: Status) -> None:
    if answer.tokens:
        return
    try:
        job = client.job(job_id)
    except CommandError:
        # The stream knows for how long it is worth taking up again.
        return
    position = job.get("queue_position")
    if job["status"] == "queued" and position is not None:
        status.update(waiting(position, job.get("eta_s")))


def waiting(position: int, eta_s: float | None) -> str:
    """How long it takes until the job begins."""
    ahead = "next in line" if position == 0 else f"{position} job{'s' * (position > 1)} ahead"
    if eta_s is None:
        return f"waiting: {ahead} …"
    about = f"{math.ceil(eta_s)} s" if eta_s < 120 else f"{math.ceil(eta_s / 60)} min"
    return f"waiting: {ahead}, about {about} …"


def show_others(job: Json) -> None:
    """The choices behind the first, which was shown as it came."""
    for choice in (job.get("choices") or [])[1:]:
        errors.print(f"[dim]{choice['index'] + 1}:[/dim]")
        print(printable(str(choice["output"])), flush=True)


def conclude(job: Json, answer: Answer) -> None:
    """Says how the job ended. Raises CommandError when it has no answer."""
    if job["status"] in ("failed", "cancelled"):
        error = job.get("error") or {}
        raise CommandError(f"{job['id']} {job['status']}: {error.get('message', 'no reason given')}")
    end = " (stopped by its token limit)" if job["status"] == "incomplete" else ""
    first = f", the first after {answer.first_token_s:.2f} s" if answer.first_token_s is not None else ""
    errors.print(f"[dim]{job['id']} {job['status']}{end}: {answer.tokens} tokens{first}[/dim]")
