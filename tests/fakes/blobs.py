"""Blobs in memory. Passes the contract of the real ones."""

import io
import time
from typing import BinaryIO

from jobs.blobs import checked, digest_of
from jobs.errors import BlobNotFound


class FakeBlobs:
    def __init__(self) -> None:
        self._blobs: dict[str, tuple[float, bytes]] = {}

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        self._blobs[digest] = (time.time(), bytes(data))
        return digest

    def put_file(self, file: BinaryIO) -> str:
        file.seek(0)
        return self.put(file.read())

    def open(self, digest: str) -> BinaryIO:
        return io.BytesIO(self.get(digest))

    def get(self, digest: str) -> bytes:
        try:
            return self._blobs[checked(digest)][1]
        except KeyError:
            raise BlobNotFound(digest) from None

    def touch(self, digest: str) -> None:
        self.put(self.get(digest))

    def delete(self, digest: str, age_s: float = 0.0) -> None:
        at, _ = self._blobs.get(checked(digest), (0.0, b""))
        if age_s <= 0 or at < time.time() - age_s:
            self._blobs.pop(digest, None)

    def older_than(self, age_s: float, limit: int = 1000) -> list[str]:
        before = time.time() - age_s
        return [digest for digest, (at, _) in self._blobs.items() if at < before][:limit]
