"""Finds the server to talk to: the one that was named, or the one that `vlmq up` runs here."""

from typing import Annotated

import typer

from cli.client import Client
from cli.errors import CommandError
from cli.folder import Folder
from cli.settings import CommandSettings
from jobs.settings import load

DEFAULT_URL = "http://127.0.0.1:8700"

UrlOption = Annotated[str, typer.Option("--url", help="The server. Default: VLMQ_CLI_URL, else the running one.")]
KeyOption = Annotated[str, typer.Option("--key", help="The API key. Default: VLMQ_CLI_KEY.")]


def client(url: str, key: str) -> Client:
    settings = load(CommandSettings)
    running = None if url or settings.url else Folder(settings.folder).running()
    found = url or settings.url or (running.url if running else DEFAULT_URL)
    return Client(found, key or settings.key)


def model(client: Client, given: str) -> str:
    """The model to ask: the one that was named, or the only one, or the first that is ready."""
    if given:
        return given
    served = client.models()
    if not served:
        raise CommandError(f"{client.url} serves no model")
    return str(served[0]["id"])
