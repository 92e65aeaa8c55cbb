"""The port FileStore on PostgreSQL."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select

from jobs.database import Database
from jobs.errors import FileNotFound
from jobs.files import File, FileFilter, NewFile, Purpose
from jobs.idempotency import IdempotencyKey, claim
from jobs.store.purge import forget_results
from jobs.tables import files

LIVES = or_(files.c.expires_at.is_(None), files.c.expires_at > func.now())


class PostgresFileStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, file: NewFile, idempotency: IdempotencyKey | None = None) -> File:
        if idempotency is None:
            return self._database.statement(lambda on: insert_file(on, file))

        def work(on: Connection) -> File:
            claim(on, idempotency, file.id)
            return insert_file(on, file)

        return self._database.transaction(work)

    def get(self, file_id: str, tenant: str) -> File:
        known = select(files).where(files.c.id == file_id, files.c.tenant == tenant, LIVES)
        row = self._database.statement(lambda on: on.execute(known).one_or_none())
        if row is None:
            raise FileNotFound(file_id)
        return _file_of(row)

    def page(self, tenant: str, wanted: FileFilter) -> list[File]:
        return self._database.statement(lambda on: _page(on, tenant, wanted))

    def delete(self, file_id: str, tenant: str) -> None:
        known = delete(files).where(files.c.id == file_id, files.c.tenant == tenant, LIVES)

        def work(on: Connection) -> None:
            if on.execute(known).rowcount == 0:
                raise FileNotFound(file_id)
            forget_results(on, [file_id])

        self._database.transaction(work)

    def expire(self, limit: int = 500) -> list[str]:
        old = (
            select(files.c.id)
            .where(files.c.expires_at <= func.now())
            .order_by(files.c.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("old")
        )
        gone = delete(files).where(files.c.id == old.c.id).returning(files.c.id)
        return self._database.statement(lambda on: list(on.execute(gone).scalars()))


def insert_file(connection: Connection, file: NewFile) -> File:
    """For whoever makes a file together with something else."""
    lifetime = None if file.lifetime_s is None else func.now() + timedelta(seconds=file.lifetime_s)
    row = insert(files).values(
        id=file.id,
        tenant=file.tenant,
        purpose=file.purpose,
        filename=file.filename,
        bytes=file.bytes,
        digest=file.digest,
        expires_at=lifetime,
    )
    return _file_of(connection.execute(row.returning(*files.c)).one())


def _page(connection: Connection, tenant: str, wanted: FileFilter) -> list[File]:
    statement = select(files).where(files.c.tenant == tenant, LIVES).limit(wanted.limit)
    statement = statement.order_by(files.c.number.asc() if wanted.ascending else files.c.number.desc())
    if wanted.purpose is not None:
        statement = statement.where(files.c.purpose == wanted.purpose)
    if wanted.after is not None:
        numbers = select(files.c.number).where(files.c.id == wanted.after, files.c.tenant == tenant, LIVES)
        after = connection.execute(numbers).scalar_one_or_none()
        if after is None:
            raise FileNotFound(wanted.after)
        statement = statement.where(files.c.number > after if wanted.ascending else files.c.number < after)
    return [_file_of(row) for row in connection.execute(statement)]


def _file_of(row: Row[Any]) -> File:
    return File(
        id=row.id,
        tenant=row.tenant,
        purpose=Purpose(row.purpose),
        filename=row.filename,
        bytes=row.bytes,
        digest=row.digest,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
