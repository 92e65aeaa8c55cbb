"""Reads `file://` media, only below folders that the operator names, however links and renames play."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from worker.media.errors import MediaCode, MediaRefused

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileRoots:
    """Links are followed first; what they lead to must lie below a root. It is then opened step by step without
    following links, so that nothing can be exchanged between check and use."""

    def __init__(self, roots: Iterable[str], max_bytes: int) -> None:
        self._roots = tuple(Path(root).resolve() for root in roots)
        self._max_bytes = max_bytes

    def read(self, url: str) -> bytes:
        """The bytes of `file:///path`. Raises MediaRefused."""
        path = self._path(url)
        try:
            real = path.resolve()
            root = next((r for r in self._roots if real.is_relative_to(r)), None)
            if root is None:
                raise MediaRefused(MediaCode.INVALID_URL, f"{url!r} is outside the folders that media may come from")
            return self._read(root, real.relative_to(root).parts, url)
        except (OSError, RuntimeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "a loop of links"
            raise MediaRefused(MediaCode.FILE_NOT_FOUND, f"{url!r} cannot be read: {reason}") from exc

    @staticmethod
    def _path(url: str) -> Path:
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
            raise MediaRefused(MediaCode.INVALID_URL, f"{url!r} is not file:///absolute/path")
        return Path(path)

    def _read(self, root: Path, parts: tuple[str, ...], url: str) -> bytes:
        if not parts:
            raise MediaRefused(MediaCode.INVALID_URL, f"{url!r} is a folder")
        folder = os.open(root, _FOLDER)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            file = os.open(parts[-1], _FILE, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(file, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise MediaRefused(MediaCode.INVALID_URL, f"{url!r} is no regular file")
            data = stream.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise MediaRefused(MediaCode.FILE_TOO_LARGE, f"{url!r} has more than {self._max_bytes} bytes")
        return data
