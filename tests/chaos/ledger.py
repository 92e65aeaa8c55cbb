"""What the database says while and after a run, asked directly. Knows the tables, and no part of the product's code."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row


class Ledger:
    """Each question has a connection of its own: the server may have died since the last."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5, row_factory=dict_row) as connection:
            yield connection

    def ask(self, question: str, *values: Any) -> list[dict[str, Any]]:
        with self.connection() as connection:
            return connection.execute(question, values).fetchall()

    def patiently(self, question: str, *values: Any, within_s: float = 60.0) -> list[dict[str, Any]]:
        """The same, also while the server is just coming back."""
        end = time.monotonic() + within_s
        while True:
            try:
                return self.ask(question, *values)
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def running_on(self, pid: int) -> dict[str, int]:
        """Jobs that the worker with this process id runs, with their attempts."""
        question = "SELECT id, attempt FROM jobs WHERE state = 'in_progress' AND worker LIKE %s"
        return {row["id"]: row["attempt"] for row in self.patiently(question, f"%:{pid}:%")}

    def moved_on(self, jobs: dict[str, int]) -> bool:
        """Whether each of these has ended or runs in a later attempt."""
        rows = self.patiently("SELECT id, attempt, state FROM jobs WHERE id = ANY(%s)", list(jobs))
        still = [r for r in rows if r["state"] in ("queued", "in_progress")]
        return all(r["state"] == "in_progress" and r["attempt"] > jobs[r["id"]] for r in still)
