"""`vlmq demo`: starts everything in a folder of its own, asks about pictures, streams the answers, stops.

It is a client like any other: what it shows went through HTTP, queue, worker and engine.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli import asking, chat, demo_pictures, detach, job_commands
from cli.client import Client, Json
from cli.demo_pictures import LARGE, SMALL, Thing
from cli.errors import CommandError
from cli.folder import Folder
from cli.plan import Options
from cli.terminal import console

PHOTOGRAPHS = Path(__file__).resolve().parent / "pictures"
DEMO_MODEL = "vlmq-demo"
MAX_TOKENS = 48
GOOD_ENDS = ("completed", "incomplete")
MAY_BE_WRONG = 1


@dataclass(frozen=True, slots=True)
class Task:
    """`answer` is what the demo model should say; empty where it can only guess. `follow_up` asks again in the same
    conversation, about what was answered before."""

    question: str
    pictures: tuple[Path, ...] = ()
    answer: str = ""
    video: bool = False
    follow_up: "Task | None" = None


@dataclass(slots=True)
class Tally:
    """What came of the tasks."""

    jobs: list[Json] = field(default_factory=list)
    asked: int = 0
    right: int = 0


def run(place: Path, model: str) -> int:
    """Returns 0 when every job got an answer and the demo model's are right but for one. Raises CommandError."""
    begun = time.monotonic()
    folder = Folder(place)
    todo = tasks(folder.path / "pictures")
    detach.start(Options(folder.path, port=0, flower_port=0, models=(model,), workers=1), tethered=True)
    tally = Tally()
    try:
        running = folder.running()
        if running is None:
            raise CommandError(f"vlmq stopped right after its start; its log: {folder.logs / 'up.log'}")
        console.print(f"  API {running.url}, Flower {running.flower_url}\n")
        client = Client(running.url)
        for number, task in enumerate(todo, 1):
            _converse(client, model, number, task, tally)
    finally:
        detach.stop(folder)
    _conclude(tally, time.monotonic() - begun)
    return 0


def tasks(folder: Path) -> list[Task]:
    """Eight questions about drawings, one about a photograph, one about nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    circle, square = Thing("circle", "red", LARGE, 0.2, 0.5), Thing("square", "blue", SMALL, 0.8, 0.5)
    two = demo_pictures.shapes(folder / "two.png", (circle, square))
    stars = [Thing("star", "yellow", SMALL, x, 0.2) for x in (0.17, 0.5, 0.83)]
    many = demo_pictures.shapes(
        folder / "many.png", (*stars, Thing("triangle", "green", LARGE, 0.5, 0.8)), ground="white"
    )
    greener = demo_pictures.shapes(folder / "greener.png", (Thing("circle", "green", LARGE, 0.2, 0.5), square))
    return [
        Task("Describe the picture.", (two,), "There is a large red circle left of a small blue square."),
        Task("How many stars are there?", (many,), "There are three stars."),
        Task("What does it say?", (demo_pictures.sign(folder / "sign.png", "WELCOME"),), 'It says "WELCOME".'),
        Task("What is different?", (two, greener), "The circle is red in Image-1 and green in Image-2."),
        Task("Which picture shows a triangle?", (two, many, greener), "Image-2 shows a triangle."),
        Task(
            "What moves, and where?",
            tuple(demo_pictures.frames(folder)),
            "The yellow star moves to the right.",
            video=True,
        ),
        Task(
            "What is on the right?",
            (two,),
            "There is a small blue square on the right.",
            follow_up=Task("What colour is it?", answer="It is blue."),
        ),
        Task("Who are you?", answer="I am a small demo model that looks at pictures."),
        Task("Describe the picture.", (PHOTOGRAPHS / "cat.jpg",)),
    ]


def _converse(client: Client, model: str, number: int, task: Task, tally: Tally) -> None:
    messages = [{"role": "user", "content": _content(task)}]
    console.print(f"[bold cyan]{number}. {task.question}[/bold cyan] [dim]({_shown(task)})[/dim]")
    answer = _ask(client, model, messages, task, tally)
    if task.follow_up is not None:
        again = task.follow_up
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": again.question}]
        console.print(f"[bold cyan]   {again.question}[/bold cyan] [dim](the same conversation)[/dim]")
        _ask(client, model, messages, again, tally)


def _content(task: Task) -> Any:
    detail = "low" if task.video else "auto"  # one tile a frame
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": chat.picture_url(str(picture)), "detail": detail}}
        for picture in task.pictures
    ]
    if not parts:
        return task.question
    lines = [f"Frame{k}: <image>\n" for k in range(1, len(parts) + 1)] if task.video else []
    return [*parts, {"type": "text", "text": "".join(lines) + task.question}]


def _shown(task: Task) -> str:
    if not task.pictures:
        return "text only"
    if task.video:
        return f"a video of {len(task.pictures)} frames"
    guess = "" if task.answer else ": a photograph, of which the demo model knows nothing"
    return ", ".join(picture.name for picture in task.pictures) + guess


def _ask(client: Client, model: str, messages: list[Any], task: Task, tally: Tally) -> str:
    """The answer, shown as it comes."""
    body = {"model": model, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0, "priority": "interactive"}
    job_id = str(client.submit(body)["id"])
    streamed = asking.follow(client, job_id)
    job = client.job(job_id)
    if job["output"] != streamed.text:
        raise CommandError(f"the stream of {job_id} brought another text than the job has")
    tally.jobs.append(job)
    first = streamed.first_token_s or 0.0
    console.print(
        f"[dim]{streamed.tokens} tokens, one event each: the first after {first:.2f} s, "
        f"the last {streamed.last_token_s - first:.2f} s later[/dim]"
    )
    if model == DEMO_MODEL and task.answer:
        right = streamed.text == task.answer
        tally.asked += 1
        tally.right += right
        console.print("[green]✓ right[/green]\n" if right else f"[red]✗ expected:[/red] {task.answer}\n")
    else:
        console.print()
    return streamed.text


def _conclude(tally: Tally, seconds: float) -> None:
    console.print()
    for job in tally.jobs:
        limit = f" (its {MAX_TOKENS} tokens were used up)" if job["status"] == "incomplete" else ""
        console.print(f"[bold]{job['id']}[/bold]  {job['status']}{limit}\n  {job_commands.timeline(job)}")
    bad = [job["id"] for job in tally.jobs if job["status"] not in GOOD_ENDS]
    if bad:
        raise CommandError(f"{len(bad)} of {len(tally.jobs)} jobs did not get an answer: {', '.join(bad)}")
    if tally.right < tally.asked - MAY_BE_WRONG:
        raise CommandError(f"only {tally.right} of {tally.asked} answers are right")
    judged = f", {tally.right} of {tally.asked} judged answers right" if tally.asked else ""
    console.print(f"\n[green]✓[/green] {len(tally.jobs)} jobs answered in {seconds:.0f} s{judged}")
