"""From a medium's reference to its encoded bytes, by the reference's scheme."""

from collections.abc import Callable
from typing import Protocol, Self

from jobs.errors import BlobNotFound, BlobsUnavailable
from jobs.network import HostRule
from worker.errors import MediaUnavailable
from worker.media.errors import MediaCode, MediaRefused
from worker.media.fetch import Fetcher, FetchLimits
from worker.media.files import FileRoots
from worker.settings import WorkerSettings


class BlobReader(Protocol):
    """The half of `jobs.ports.Blobs` that is needed here."""

    def get(self, digest: str) -> bytes: ...


class Sources:
    """Thread-safe."""

    def __init__(self, blobs: BlobReader, files: FileRoots, fetcher: Fetcher, max_bytes: int) -> None:
        self._blobs = blobs
        self._files = files
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    @classmethod
    def of(cls, settings: WorkerSettings, blobs: BlobReader, max_bytes: int) -> Self:
        """For files of at most so many bytes."""
        limits = FetchLimits(
            max_bytes=max_bytes,
            max_redirects=settings.max_redirects,
            connect_s=settings.connect_timeout_s,
            read_s=settings.read_timeout_s,
            total_s=settings.fetch_timeout_s,
        )
        rule = HostRule.of(settings.media_ports, settings.allowed_private_hosts)
        files = FileRoots(settings.allowed_file_roots, max_bytes)
        return cls(blobs, files, Fetcher(rule, limits), max_bytes)

    def load(self, source: str, unwanted: Callable[[], bool]) -> bytes:
        """`blob:<sha256>`, `http(s)://…` or `file://…`. Raises MediaRefused, MediaUnavailable; the latter too once
        nobody wants what a host has not sent."""
        scheme = source.partition(":")[0].lower()
        if scheme == "blob":
            data = self._blob(source.partition(":")[2])
        elif scheme == "file":
            data = self._files.read(source)
        elif scheme in ("http", "https"):
            data = self._fetcher.fetch(source, unwanted)
        else:
            raise MediaRefused(MediaCode.INVALID_URL, f"media cannot come from {scheme[:40]!r} URLs")
        if not data:
            raise MediaRefused(MediaCode.EMPTY_FILE, f"the file {source[:200]!r} has no bytes")
        return data

    def _blob(self, digest: str) -> bytes:
        try:
            data = self._blobs.get(digest)
        except BlobNotFound as exc:
            raise MediaRefused(MediaCode.FILE_NOT_FOUND, str(exc)) from exc
        except BlobsUnavailable as exc:
            raise MediaUnavailable(str(exc)) from exc
        if len(data) > self._max_bytes:
            raise MediaRefused(MediaCode.FILE_TOO_LARGE, f"the file has {len(data)} bytes, more than {self._max_bytes}")
        return data
