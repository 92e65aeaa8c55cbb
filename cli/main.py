"""The `vlmq` command. Translates words into calls; what they do stands in the other files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import asking, job_commands, key_commands, tenant_commands, webhook_commands
from cli.errors import CommandError
from cli.folder import Folder, describe
from cli.settings import CommandSettings
from cli.terminal import console, fail
from jobs.errors import VlmqError
from jobs.settings import ServiceSettings, SettingsError, load

app = typer.Typer(
    help="Durable, self-hosted chat jobs for InternVL vision-language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
asking.add_to(app)
job_commands.add_to(app)
key_commands.add_to(app)
tenant_commands.add_to(app)
webhook_commands.add_to(app)

FolderOption = Annotated[Path | None, typer.Option(help="Data, logs and sockets of one installation. Default: var.")]


@app.command("up")
def up_command(
    folder: FolderOption = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API on 127.0.0.1; 0: a free one.")] = 8700,
    flower_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Flower; 0: a free one.")] = 8701,
    model: Annotated[list[str] | None, typer.Option(help="A model to serve; may be repeated. Default: conf.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers per model; on GPUs, one per GPU.")] = 1,
    detach_: Annotated[bool, typer.Option("--detach", help="Return once it is ready and leave it running.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show everything that the programs log.")] = False,
) -> None:
    """Start everything on this machine; Ctrl-C stops it."""
    # Late: what runs servers takes time to import, and most commands only talk to one.
    from cli import detach, up
    from cli.plan import Options

    models = tuple(model) if model else load(ServiceSettings).models
    options = Options(_folder(folder), port, flower_port, models, workers, verbose)
    if not detach_:
        raise typer.Exit(up.run(options))
    place = Folder(options.folder)
    running = place.running()
    if running is not None:
        console.print(f"vlmq already runs in {place.path}:")
    describe(running or detach.start(options), place)


@app.command()
def down(folder: FolderOption = None) -> None:
    """Stop what `vlmq up` started in the folder."""
    from cli import detach

    if not detach.stop(Folder(_folder(folder))):
        console.print(f"nothing runs in {_folder(folder)}")


@app.command()
def status(folder: FolderOption = None) -> None:
    """Show what runs in the folder; exit status 1 when nothing does."""
    place = Folder(_folder(folder))
    running = place.running()
    if running is None:
        raise CommandError(f"nothing runs in {place.path}" + (" that is ready yet" if place.busy() else ""))
    describe(running, place)
    for name, pid in running.processes.items():
        console.print(f"  {name:<14} pid {pid}")


@app.command()
def demo(
    folder: Annotated[Path | None, typer.Option(help="Where it keeps its data. Default: var/demo.")] = None,
    model: Annotated[str, typer.Option(help="The model that answers. Default: the first of conf.")] = "",
) -> None:
    """Start everything on free ports, send pictures, stream the answers, stop."""
    # Late: it draws pictures, with a package that no other command needs.
    from cli.demo import run

    raise typer.Exit(run(folder or _folder(None) / "demo", model or load(ServiceSettings).models[0]))


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="A model of conf/models.")],
    path: Annotated[str, typer.Option(help="Its checkpoint folder, instead of the one that conf names.")] = "",
) -> None:
    """Check a model's checkpoint, say what it needs, and whether this machine can serve it."""
    # Late: it reads tokenizers, with packages that no other command needs.
    from cli.doctor import run

    run(model, path)


def _folder(given: Path | None) -> Path:
    return given if given is not None else load(CommandSettings).folder


def main() -> None:
    """Runs the command; whatever is expected to go wrong becomes one clear message."""
    try:
        app()
    except CommandError as exc:
        fail(exc)
        sys.exit(exc.code)
    except (SettingsError, VlmqError) as exc:
        fail(CommandError(str(exc)))
        sys.exit(1)


if __name__ == "__main__":
    main()
