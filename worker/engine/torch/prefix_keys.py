"""Names for the full pages of one sequence, so that equal prefixes have equal names. Knows nothing of pages' memory."""

from array import array
from collections.abc import Mapping, Sequence
from hashlib import blake2b

_NO_DIGESTS: Mapping[int, bytes] = {}


class PrefixKeys:
    """A chain of hashes: the key of page i names its own tokens and all before them, from a root that is the salt.

    `ids` is the sequence's own growing list, text tokens as they are and the visual token number n of its image as
    `-1 - n`; `digests` maps a page to the digests (32 bytes each) of the images it shows, in order. So two pictures
    under the same text never share a key, and one picture at the same place always does, whatever its virtual ids.
    """

    def __init__(
        self, ids: Sequence[int], page_size: int, salt: int | str, digests: Mapping[int, bytes] = _NO_DIGESTS
    ) -> None:
        self._ids = ids
        self._page_size = page_size
        self._digests = digests
        self._root = blake2b(f"{page_size}:{salt}".encode(), digest_size=32).digest()
        self._keys: list[bytes] = []

    def key(self, page: int) -> bytes:
        """32 bytes. The page must be full: `len(ids) >= (page + 1) × page_size`."""
        while len(self._keys) <= page:
            self._keys.append(self._next())
        return self._keys[page]

    def _next(self) -> bytes:
        page = len(self._keys)
        tokens = self._ids[page * self._page_size : (page + 1) * self._page_size]
        if len(tokens) < self._page_size:
            raise IndexError(f"page {page} has {len(tokens)} of {self._page_size} tokens")
        chain = blake2b(self._keys[-1] if self._keys else self._root, digest_size=32)
        chain.update(array("q", tokens).tobytes())
        chain.update(self._digests.get(page, b""))
        return chain.digest()
