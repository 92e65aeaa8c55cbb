"""Media bytes by their sha256: in a folder of this machine, or wherever fsspec reaches (`s3://…`).

Knows neither jobs nor what the bytes mean.
"""

import contextlib
import hashlib
import io
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from jobs.errors import BlobNotFound, BlobsUnavailable

_DIGEST = re.compile(r"[0-9a-f]{64}")
PIECE_BYTES = 2**20

_ASIDE = re.compile(r"\.([0-9a-f]{64})-[0-9a-f]{32}")
_HALF_A_FILE_S = 86400.0
_TOUCHES = 5
_TOUCH_PAUSE_S = 0.02


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of_file(file: BinaryIO) -> str:
    """Of the whole file, which is read from its beginning."""
    known = hashlib.sha256()
    for piece in _pieces(file):
        known.update(piece)
    return known.hexdigest()


def checked(digest: str) -> str:
    """Only a digest may become part of a path. Raises BlobNotFound for anything else."""
    if _DIGEST.fullmatch(digest) is None:
        raise BlobNotFound(digest)
    return digest


class FolderBlobs:
    """One file per blob, `<folder>/<first two digits>/<digest>`. A file appears whole and on the disk, or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        path = self._path(digest)
        self._store(path, (data,))
        return digest

    def put_file(self, file: BinaryIO) -> str:
        with _errors_as_ours():
            digest = digest_of_file(file)
        self._store(self._path(digest), _pieces(file))
        return digest

    def get(self, digest: str) -> bytes:
        path = self._path(checked(digest))
        with _errors_as_ours():
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise BlobNotFound(digest) from None

    def open(self, digest: str) -> BinaryIO:
        path = self._path(checked(digest))
        with _errors_as_ours():
            try:
                return _reader(path.open("rb"))
            except FileNotFoundError:
                raise BlobNotFound(digest) from None

    def touch(self, digest: str) -> None:
        path = self._path(checked(digest))
        with _errors_as_ours():
            for _ in range(_TOUCHES):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
                    return
                # It may be in the collector's hands, who puts back what is young.
                time.sleep(_TOUCH_PAUSE_S)
        raise BlobNotFound(digest)

    def delete(self, digest: str, age_s: float = 0.0) -> None:
        path = self._path(checked(digest))
        aside = path.with_name(f".{digest}-{uuid.uuid4().hex}")
        with _errors_as_ours(), contextlib.suppress(FileNotFoundError):
            if age_s <= 0:
                path.unlink()
                return
            # Out of reach first: whoever puts it again from now on writes a file of its own, and whoever did before
            # has made this one young.
            path.replace(aside)
            if aside.stat().st_mtime < time.time() - age_s:
                aside.unlink()
            else:
                aside.replace(path)

    def older_than(self, age_s: float, limit: int = 1000) -> list[str]:
        before = time.time() - age_s
        found: list[str] = []
        with _errors_as_ours():
            for path in self._folder.glob("??/*"):
                if path.name.startswith("."):
                    self._tidy(path)
                with contextlib.suppress(FileNotFoundError):
                    if _DIGEST.fullmatch(path.name) and path.stat().st_mtime < before:
                        found.append(path.name)
                if len(found) == limit:
                    break
        return found

    def _tidy(self, path: Path) -> None:
        """What a process left that was killed: bytes that it was about to delete come back, half a file goes."""
        with contextlib.suppress(FileNotFoundError):
            if aside := _ASIDE.fullmatch(path.name):
                path.replace(path.with_name(aside[1]))
            elif path.stat().st_mtime < time.time() - _HALF_A_FILE_S:
                path.unlink()

    def _store(self, path: Path, pieces: Iterable[bytes]) -> None:
        with _errors_as_ours():
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, pieces)

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest


class FsspecBlobs:
    """The same on any file system of fsspec whose `pipe` makes an object appear whole, as object stores do."""

    def __init__(self, url: str) -> None:
        with _errors_as_ours():
            self._files, self._root = fsspec.url_to_fs(url)

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        with _errors_as_ours():
            # Written anew even when it is there: that is how an object's age is refreshed.
            self._files.makedirs(f"{self._root}/{digest[:2]}", exist_ok=True)
            self._files.pipe_file(self._path(digest), data)
        return digest

    def put_file(self, file: BinaryIO) -> str:
        with _errors_as_ours():
            digest = digest_of_file(file)
        self._write(digest, file)
        return digest

    def _write(self, digest: str, file: BinaryIO) -> None:
        with _errors_as_ours():
            self._files.makedirs(f"{self._root}/{digest[:2]}", exist_ok=True)
            # Committed by hand: closing alone would keep the half of it that was written before an error.
            made = self._files.open(self._path(digest), "wb", autocommit=False)
            try:
                for piece in _pieces(file):
                    made.write(piece)
                made.close()
                made.commit()
            except BaseException:
                made.discard()
                raise

    def get(self, digest: str) -> bytes:
        path = self._path(checked(digest))
        with _errors_as_ours():
            try:
                return bytes(self._files.cat_file(path))
            except FileNotFoundError:
                raise BlobNotFound(digest) from None

    def open(self, digest: str) -> BinaryIO:
        path = self._path(checked(digest))
        with _errors_as_ours():
            try:
                return _reader(self._files.open(path, "rb"))
            except FileNotFoundError:
                raise BlobNotFound(digest) from None

    def touch(self, digest: str) -> None:
        # An object's age is that of its last writing.
        with self.open(digest) as file:
            self._write(digest, file)

    def delete(self, digest: str, age_s: float = 0.0) -> None:
        path = self._path(checked(digest))
        with _errors_as_ours(), contextlib.suppress(FileNotFoundError):
            # An object store has no rename to do it under: what is put between these two calls is lost.
            self._files.invalidate_cache()
            if age_s <= 0 or self._written_at(path) < time.time() - age_s:
                self._files.rm_file(path)

    def older_than(self, age_s: float, limit: int = 1000) -> list[str]:
        before = time.time() - age_s
        found: list[str] = []
        with _errors_as_ours():
            self._files.invalidate_cache()
            for path in self._files.find(self._root):
                name = path.rpartition("/")[2]
                if _DIGEST.fullmatch(name) and self._written_at(path) < before:
                    found.append(name)
                if len(found) == limit:
                    break
        return found

    def _written_at(self, path: str) -> float:
        try:
            written: datetime = self._files.modified(path)
        except FileNotFoundError:
            return time.time()
        return written.timestamp()

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece


class _Raw(io.RawIOBase):
    """A file whose errors are ours."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        into = memoryview(buffer)
        with _errors_as_ours():
            data = self._file.read(len(into))
        into[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with _errors_as_ours():
            return int(self._file.seek(offset, whence))

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _reader(file: Any) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Raw(file), PIECE_BYTES))


def _write_whole(path: Path, pieces: Iterable[bytes]) -> None:
    descriptor, unfinished = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _errors_as_ours() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise BlobsUnavailable(f"the blob store does not answer: {exc}") from exc
