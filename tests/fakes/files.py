"""Files in memory. Passes the contract of the real store."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from jobs.errors import FileNotFound
from jobs.files import File, FileFilter, NewFile
from jobs.idempotency import IdempotencyKey


class FakeFileStore:
    """`now` is called for every instant. Keys are not kept: those who make things under keys use the real store."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._files: dict[str, File] = {}

    def insert(self, file: NewFile, idempotency: IdempotencyKey | None = None) -> File:
        now = self._now()
        until = None if file.lifetime_s is None else now + timedelta(seconds=file.lifetime_s)
        kept = (file.id, file.tenant, file.purpose, file.filename, file.bytes, file.digest)
        self._files[file.id] = File(*kept, created_at=now, expires_at=until)
        return self._files[file.id]

    def get(self, file_id: str, tenant: str) -> File:
        file = self._files.get(file_id)
        if file is None or file.tenant != tenant or self._over(file):
            raise FileNotFound(file_id)
        return file

    def page(self, tenant: str, wanted: FileFilter) -> list[File]:
        found = [f for f in self._files.values() if f.tenant == tenant and not self._over(f)]
        ids = [f.id for f in found]
        if not wanted.ascending:
            found, ids = found[::-1], ids[::-1]
        if wanted.after is not None:
            if wanted.after not in ids:
                raise FileNotFound(wanted.after)
            found = found[ids.index(wanted.after) + 1 :]
        return [f for f in found if wanted.purpose in (None, f.purpose)][: wanted.limit]

    def delete(self, file_id: str, tenant: str) -> None:
        del self._files[self.get(file_id, tenant).id]

    def expire(self, limit: int = 500) -> list[str]:
        over = [f.id for f in self._files.values() if self._over(f)][:limit]
        for file_id in over:
            del self._files[file_id]
        return over

    def _over(self, file: File) -> bool:
        return file.expires_at is not None and file.expires_at <= self._now()
