"""The pictures of requests as this process knows them: their bytes go to the blob store, their sizes stay here for the
estimate of what a request costs."""

import contextlib
import threading
from collections import OrderedDict

from api.picture_size import HEAD_BYTES, Size, size_of
from jobs.errors import BlobNotFound
from jobs.ports import Blobs

REMEMBERED = 10_000


class Pictures:
    """Thread-safe. Sizes are by content, so they never become wrong."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, Size | None] = OrderedDict()

    def keep(self, data: bytes) -> str:
        """Stores the bytes, a picture's or not, and returns their digest. Raises BlobsUnavailable."""
        digest = self._blobs.put(data)
        self._remember(digest, size_of(data))
        return digest

    def size(self, source: str) -> Size | None:
        """Of the picture that a part of a request names. None: it lies elsewhere, or is none that is known. Raises
        BlobsUnavailable."""
        scheme, _, digest = source.partition(":")
        if scheme != "blob":
            return None
        with self._lock:
            if digest in self._sizes:
                self._sizes.move_to_end(digest)
                return self._sizes[digest]
        size = None
        # The worker will tell when it is gone.
        with contextlib.suppress(BlobNotFound), self._blobs.open(digest) as file:
            size = size_of(file.read(HEAD_BYTES))
        self._remember(digest, size)
        return size

    def _remember(self, digest: str, size: Size | None) -> None:
        with self._lock:
            self._sizes[digest] = size
            self._sizes.move_to_end(digest)
            while len(self._sizes) > REMEMBERED:
                self._sizes.popitem(last=False)
