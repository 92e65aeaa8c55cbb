"""`vlmq demo`: starts everything in a folder of its own, sends photographs and drawings, streams the answers, stops.

It is a client like any other: what it shows went through HTTP, queue, worker and engine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from cli import asking, chat, detach, job_commands
from cli.client import Client, Json
from cli.errors import CommandError
from cli.folder import Folder
from cli.plan import Options
from cli.terminal import console

PHOTOGRAPHS = Path(__file__).resolve().parent / "pictures"
MAX_TOKENS = 40
GOOD_ENDS = ("completed", "incomplete")


@dataclass(frozen=True, slots=True)
class Task:
    question: str
    pictures: tuple[Path, ...] = ()


def run(place: Path, model: str) -> int:
    """Returns 0 when every job got its answer. Raises CommandError when something cannot start."""
    begun = time.monotonic()
    folder = Folder(place)
    drawings = draw(folder.path / "pictures")
    detach.start(Options(folder.path, port=0, flower_port=0, models=(model,), workers=1), tethered=True)
    try:
        running = folder.running()
        if running is None:
            raise CommandError(f"vlmq stopped right after its start; its log: {folder.logs / 'up.log'}")
        console.print(f"  API {running.url}, Flower {running.flower_url}\n")
        client = Client(running.url)
        jobs = [_ask(client, model, number, task) for number, task in enumerate(tasks(drawings), 1)]
    finally:
        detach.stop(folder)
    console.print()
    for job in jobs:
        limit = f" (its {MAX_TOKENS} tokens were used up)" if job["status"] == "incomplete" else ""
        console.print(f"[bold]{job['id']}[/bold]  {job['status']}{limit}\n  {job_commands.timeline(job)}")
    bad = [job["id"] for job in jobs if job["status"] not in GOOD_ENDS]
    if bad:
        raise CommandError(f"{len(bad)} of {len(jobs)} jobs did not get an answer: {', '.join(bad)}")
    console.print(f"\n[green]✓[/green] {len(jobs)} jobs answered in {time.monotonic() - begun:.0f} s")
    return 0


def tasks(drawings: dict[str, Path]) -> list[Task]:
    return [
        Task("What is in this photograph?", (PHOTOGRAPHS / "cat.jpg",)),
        Task("What do these two photographs have in common?", (PHOTOGRAPHS / "coffee.jpg", PHOTOGRAPHS / "rocket.jpg")),
        Task("What shapes are drawn here, and in which colours?", (drawings["shapes"],)),
        Task("Which of the two charts grows, the first or the second?", (drawings["rising"], drawings["falling"])),
        Task("Say hello to whoever tries this for the first time."),
    ]


def _ask(client: Client, model: str, number: int, task: Task) -> Json:
    names = ", ".join(picture.name for picture in task.pictures) or "text only"
    console.print(f"[bold cyan]{number}. {task.question}[/bold cyan] [dim]({names})[/dim]")
    pictures = [str(picture) for picture in task.pictures]
    body = chat.body(model, task.question, pictures, max_tokens=MAX_TOKENS, temperature=0, priority="interactive")
    job_id = str(client.submit(body)["id"])
    answer = asking.follow(client, job_id)
    job = client.job(job_id)
    if job["output"] != answer.text:
        raise CommandError(f"the stream of {job_id} brought another text than the job has")
    first = answer.first_token_s or 0.0
    console.print(
        f"[dim]{answer.tokens} tokens, one event each: the first after {first:.2f} s, "
        f"the last {answer.last_token_s - first:.2f} s later[/dim]\n"
    )
    return job


def draw(folder: Path) -> dict[str, Path]:
    """Pictures made here and now, so that no checkpoint and no cache has seen them."""
    folder.mkdir(parents=True, exist_ok=True)
    painters: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
        "shapes": _shapes,
        "rising": lambda pen: _chart(pen, (40, 80, 130, 190, 260)),
        "falling": lambda pen: _chart(pen, (260, 210, 150, 90, 30)),
    }
    drawn = {}
    for name, paint in painters.items():
        picture = Image.new("RGB", (480, 360), "ivory")
        paint(ImageDraw.Draw(picture))
        drawn[name] = folder / f"{name}.png"
        picture.save(drawn[name])
    return drawn


def _shapes(pen: ImageDraw.ImageDraw) -> None:
    pen.ellipse((30, 40, 190, 200), fill="crimson")
    pen.rectangle((230, 60, 440, 180), fill="royalblue")
    pen.polygon(((120, 330), (240, 220), (360, 330)), fill="gold", outline="black")


def _chart(pen: ImageDraw.ImageDraw, heights: tuple[int, ...]) -> None:
    pen.line((40, 20, 40, 320, 460, 320), fill="black", width=3)
    for index, height in enumerate(heights):
        left = 70 + 75 * index
        pen.rectangle((left, 320 - height, left + 50, 320), fill="seagreen")
