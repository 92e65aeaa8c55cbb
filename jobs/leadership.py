"""Which of several processes leads: the one whose database session holds an advisory lock. Knows not what for."""

import contextlib

from sqlalchemy import Connection, text

from jobs.database import engine, errors_as_ours
from jobs.errors import StoreUnavailable

MAINTENANCE_LOCK = 0x766C_6D71_6D61_696E
"""The lock of the maintenance process ("vlmqmain" in ASCII)."""


class Leadership:
    """Held by a session of its own until `close` or until the process or its connection dies: then the next process
    that asks leads. Not thread-safe."""

    def __init__(self, database_url: str, lock: int = MAINTENANCE_LOCK, timeout_s: float = 5.0) -> None:
        self._engine = engine(database_url, 1, timeout_s, timeout_s)
        self._lock = lock
        self._connection: Connection | None = None
        self._held = False

    def held(self) -> bool:
        """Whether this process leads now; asks for the lead when it does not. Raises StoreUnavailable, after which
        the lead is lost."""
        try:
            with errors_as_ours():
                if self._connection is None:
                    self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                question = "SELECT true" if self._held else f"SELECT pg_try_advisory_lock({self._lock})"
                self._held = bool(self._connection.scalar(text(question)))
        except StoreUnavailable:
            self._held = False
            self.close()
            raise
        return self._held

    def close(self) -> None:
        """Gives the lead up; `held` may ask for it again."""
        held, self._held = self._held, False
        connection, self._connection = self._connection, None
        if connection is not None:
            # A broken connection cannot be asked politely; its session ends, and the lock with it, either way.
            with contextlib.suppress(StoreUnavailable), errors_as_ours():
                if held:
                    connection.scalar(text(f"SELECT pg_advisory_unlock({self._lock})"))
            with contextlib.suppress(StoreUnavailable), errors_as_ours():
                connection.close()
        self._engine.dispose()
