"""Connections to PostgreSQL: a pool, time limits on everything, and the driver's errors as ours. Knows no table."""

import contextlib
import random
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
import sqlalchemy
from psycopg.abc import PQGen
from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobs.errors import StoreUnavailable
from jobs.settings import SettingsError

T = TypeVar("T")

ILL = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
)
"""Errors that say that the database, not the statement, is wrong: away, overloaded, read-only or not migrated."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

IDLE_IN_TRANSACTION_S = 5.0
"""How long the locks of a process that froze, or was cut off, in the middle of a transaction are in the way of all the
others: well under a lease, or the jobs that it held would be locked when they are to be taken from it."""

_PEER_GONE = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""Within a minute the server ends the sessions of a host that is gone, which hold its connections."""


class Database:
    """A pool of at most `pool_size` connections, opened when they are needed.

    No call waits for ever: not for a connection of the pool or for the server (`connect_timeout_s`), nor for an
    answer (`statement_timeout_s`), even of a server that is frozen and keeps its sockets open.
    """

    def __init__(
        self,
        url: str,
        pool_size: int = 5,
        connect_timeout_s: float = 5.0,
        statement_timeout_s: float = 15.0,
    ) -> None:
        self._engine = engine(url, pool_size, connect_timeout_s, statement_timeout_s)

    def statement(self, work: Callable[[Connection], T], patience_s: float = 0.0) -> T:
        """Runs a `work` of one statement, or of several that need not agree with each other. Raises StoreUnavailable
        when the database is ill for longer than the patience: until then `work` is tried again, so it must bear to
        be run twice."""
        return _patiently(lambda: self._run(work), patience_s)

    def transaction(self, work: Callable[[Connection], T], patience_s: float = 0.0) -> T:
        """The same for a `work` that happens as a whole or not at all."""
        return _patiently(lambda: self._run(lambda connection: _whole(connection, work)), patience_s)

    def close(self) -> None:
        self._engine.dispose()

    def _run(self, work: Callable[[Connection], T]) -> T:
        with errors_as_ours(), self._engine.connect() as connection:
            return work(connection)


def _whole(connection: Connection, work: Callable[[Connection], T]) -> T:
    connection.exec_driver_sql("BEGIN")
    try:
        result = work(connection)
    except BaseException:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")
    return result


def engine(url: str, pool_size: int, connect_timeout_s: float, statement_timeout_s: float) -> Engine:
    """Raises SettingsError for an address that is none. JSON columns take and give encoded bytes. Every statement
    is a transaction of its own unless BEGIN stands before it: the usual case is one statement, one journey."""
    limits = {
        "timezone": "UTC",
        "statement_timeout": f"{int(statement_timeout_s * 1000)}",
        "lock_timeout": f"{int(statement_timeout_s * 1000)}",
        "idle_in_transaction_session_timeout": f"{int(IDLE_IN_TRANSACTION_S * 1000)}",
        **_PEER_GONE,
    }
    # The server's own limit comes first; this one is for a server that cannot even say so.
    answer_timeout_s = statement_timeout_s + 2.0 if statement_timeout_s else None
    options = "".join(f" -c {name}={value}" for name, value in limits.items())
    made = sqlalchemy.create_engine(
        _address(url),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=connect_timeout_s,
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        json_serializer=lambda encoded: encoded,
        json_deserializer=lambda encoded: encoded,
    )

    @event.listens_for(made, "do_connect")
    def connect(dialect: Any, record: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _TimedConnection:
        kwargs["options"] = str(kwargs.get("options", "")) + options
        kwargs.setdefault("application_name", "vlmq")
        kwargs.setdefault("connect_timeout", max(2, round(connect_timeout_s)))
        if answer_timeout_s is not None:
            # What a broken network has kept back must not arrive when nobody waits for its answer any more: a job would
            # be claimed for a worker that never hears of it.
            kwargs.setdefault("tcp_user_timeout", int(answer_timeout_s * 1000))
        made = _TimedConnection.connect(*args, **kwargs)
        made.answer_timeout_s = answer_timeout_s
        return made

    @event.listens_for(made, "checkout")
    def check(connection: Any, record: Any, proxy: Any) -> None:
        # An idle connection has nothing to say, except that its server went away. Asking the server would cost a
        # journey each time.
        waiting = select.poll()
        waiting.register(connection.pgconn.socket, select.POLLIN)
        if waiting.poll(0):
            raise DisconnectionError

    return made


def _address(url: str) -> URL:
    with contextlib.suppress(ArgumentError, ValueError):
        address = make_url(url.replace("postgres://", "postgresql://", 1))
        if address.get_backend_name() == "postgresql":
            return address.set(drivername="postgresql+psycopg")
    # The URL is not shown: it may hold a password.
    raise SettingsError("database_url (environment VLMQ_DATABASE_URL) is not a postgresql:// URL")


@contextlib.contextmanager
def errors_as_ours() -> Iterator[None]:
    """An ill database becomes StoreUnavailable. A wrong statement is a fault of ours and stays what it is."""
    try:
        yield
    except PoolTimeout as exc:
        raise StoreUnavailable("no free connection to the database") from exc
    except DBAPIError as exc:
        if not exc.connection_invalidated and not isinstance(exc.orig, ILL):
            raise
        if isinstance(exc.orig, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            reason = "it is not migrated: run python -m jobs.schema"
        else:
            reason = " ".join(str(exc.orig).split())
        raise StoreUnavailable(f"the database does not answer: {reason}") from exc


class _TimedConnection(psycopg.Connection[Any]):
    """Waits for an answer for a bounded time. After that the connection is of no use, and closed."""

    answer_timeout_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        end = None if self.answer_timeout_s is None else time.monotonic() + self.answer_timeout_s
        try:
            return super().wait(gen, interval=interval, timeout=timeout or self.answer_timeout_s)
        except psycopg.OperationalError:
            if end is not None and time.monotonic() >= end:
                self.pgconn.finish()
            raise


def _patiently(call: Callable[[], T], patience_s: float) -> T:
    """Repeats the call while it raises StoreUnavailable, with pauses that double, until the patience is over."""
    end = time.monotonic() + patience_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return call()
        except StoreUnavailable:
            if time.monotonic() + pause_s > end:
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
