"""Files of tenants: a name, a purpose and a time to live for bytes that lie in the blob store. Values and the port."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from jobs.idempotency import IdempotencyKey


class Purpose(StrEnum):
    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"
    VISION = "vision"
    USER_DATA = "user_data"


@dataclass(frozen=True, slots=True)
class NewFile:
    """`lifetime_s` counts from its creation; None: until it is deleted. `digest` names the blob."""

    id: str
    tenant: str
    purpose: Purpose
    filename: str
    bytes: int
    digest: str
    lifetime_s: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    id: str
    tenant: str
    purpose: Purpose
    filename: str
    bytes: int
    digest: str
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FileFilter:
    """`after` is a file's id: the page starts behind it, in the listing's order (newest first unless `ascending`)."""

    purpose: Purpose | None = None
    after: str | None = None
    limit: int = 100
    ascending: bool = False


class FileStore(Protocol):
    """A file past its time is as good as deleted. All raise StoreUnavailable."""

    def insert(self, file: NewFile, idempotency: IdempotencyKey | None = None) -> File:
        """Records a file, and the key that it is made under. Raises IdempotencyKeyTaken."""
        ...

    def get(self, file_id: str, tenant: str) -> File:
        """Raises FileNotFound, also when the file is another tenant's."""
        ...

    def page(self, tenant: str, wanted: FileFilter) -> list[File]:
        """One page. An unknown `after` raises FileNotFound."""
        ...

    def delete(self, file_id: str, tenant: str) -> None:
        """The bytes stay for whoever else refers to them. Raises FileNotFound."""
        ...

    def expire(self, limit: int = 500) -> list[str]:
        """Deletes files past their time. Returns their ids."""
        ...
