"""What a person sees: steps with their time, lines with a coloured name before them, errors with a hint."""

import re
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from cli.errors import CommandError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")
NAME_WIDTH = 12
TROUBLE = re.compile(r"\b(WARNING|ERROR|CRITICAL|Traceback|[A-Z]\w*(Error|Exception):)")


@contextmanager
def step(what: str) -> Iterator[Status]:
    """Shows that something goes on, and afterwards how long it took."""
    start = time.monotonic()
    with console.status(f"{what} …") as status:
        if not console.is_terminal:
            console.print(f"{what} …")
        try:
            yield status
        except BaseException:
            console.print(f"[red]✗[/red] {what}")
            raise
    console.print(f"[green]✓[/green] {what} [dim]{time.monotonic() - start:.1f} s[/dim]")


class Lines:
    """Prints lines of programs, each name in its colour. Quiet: only what looks like trouble."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._colours: dict[str, str] = {}

    def about(self, name: str, line: str) -> None:
        """A line about a program: always shown."""
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        console.print(f"[{colour}]{escape(name):<{NAME_WIDTH}}[/{colour}] {escape(line)}")

    def output_of(self, name: str, line: str) -> None:
        """A line that a program wrote."""
        if self._verbose or TROUBLE.search(line):
            self.about(name, line)


def fail(error: CommandError) -> None:
    """Says what went wrong and what to do."""
    errors.print(f"[red]vlmq:[/red] {escape(str(error))}")
    if error.hint:
        errors.print(f"      {escape(error.hint)}")


def printable(text: str) -> str:
    """The text without what would steer a terminal; as it is when it goes to a file or a pipe."""
    if not sys.stdout.isatty():
        return text
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
