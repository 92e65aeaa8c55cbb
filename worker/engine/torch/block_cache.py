"""Accounts for the pages of the KV cache: who holds which, which can be reused, which go first. Pure Python; it knows
page numbers and opaque keys, not tensors, tokens or requests.

    ┌── free ──┐  grow   ┌──── used ────┐  release, no key  ┌── free ──┐
    │ no owner │ ──────► │ held by 1..n │ ────────────────► │ no owner │
    └──────────┘         │    leases    │                   └──────────┘
          ▲              └──────────────┘
          │ grow evicts      ▲      │ release by the last lease, has a key
          │ the oldest       │      ▼
          │    reuse by key  ┌──── cached ───┐
          └───────────────── │ owned by LRU  │
                             └───────────────┘

A page is in exactly one of the three. Only `release` ends a lease's hold, only the scheduler calls it, and once per
lease. `open` promises a lease all pages it can ever need, so whoever was admitted is never thrown out: the sum of the
promises never exceeds free + cached. Page 0 belongs to nobody: it stays zero and pads the page tables.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from worker.engine.torch.prefix_keys import PrefixKeys

NULL_PAGE = 0


class IntegrityError(Exception):
    """The accounts contradict themselves: a bug here or in a caller."""


@dataclass(slots=True, eq=False)
class Lease:
    """The pages of one sequence in order of its tokens. The first `shared` came from the cache; `promised` more may
    still be taken."""

    promised: int
    pages: list[int] = field(default_factory=list)
    shared: int = 0


def pages_for(tokens: int, page_size: int) -> int:
    return -(-tokens // page_size)


class BlockCache:
    """`pages` usable pages, numbered from 1."""

    def __init__(self, pages: int, page_size: int) -> None:
        if pages < 1 or page_size < 1:
            raise ValueError(f"pages and page_size must be at least 1, got {pages} and {page_size}")
        self.pages_total = pages
        self.page_size = page_size
        self._free = list(range(pages, 0, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._holders = [0] * (pages + 1)
        self._page_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._trusted: set[int] = set()
        self._promised = 0
        self._leases: set[Lease] = set()

    @property
    def pages_free(self) -> int:
        return len(self._free)

    @property
    def pages_cached(self) -> int:
        return len(self._cached)

    @property
    def leases(self) -> int:
        return len(self._leases)

    def open(self, keys: PrefixKeys, reusable: int, tokens: int) -> Lease | None:
        """Promises room for `tokens` and takes what the cache has of the first `reusable` pages. None: no room now."""
        need = pages_for(tokens, self.page_size)
        matched = self._match(keys, 0, reusable)
        in_use = sum(self._holders[page] > 0 for page in matched)
        if need - in_use > len(self._free) + len(self._cached) - self._promised:
            return None
        lease = Lease(promised=need)
        self._promised += need
        self._leases.add(lease)
        self._share(lease, matched)
        return lease

    def reuse(self, lease: Lease, keys: PrefixKeys, reusable: int) -> int:
        """Looks again for pages that others filled since `open`; returns how many were taken. Does nothing once the
        lease has pages of its own."""
        if len(lease.pages) != lease.shared:
            return 0
        matched = self._match(keys, len(lease.pages), reusable)
        self._share(lease, matched)
        return len(matched)

    def grow(self, lease: Lease, tokens: int) -> None:
        """Gives the lease pages for `tokens` tokens in all, out of its promise."""
        while len(lease.pages) * self.page_size < tokens:
            if not lease.promised:
                raise IntegrityError(f"{tokens} tokens are more than the lease was promised")
            lease.pages.append(self._take())
            lease.promised -= 1
            self._promised -= 1

    def register(self, lease: Lease, index: int, key: bytes) -> None:
        """Makes the lease's full page findable. When another page has this key already, that one stays known."""
        page = lease.pages[index]
        if key not in self._page_of and page not in self._key_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def release(self, lease: Lease, keep: bool = True) -> list[int]:
        """Ends the lease. Its keyed pages stay cached, later ones to be evicted before earlier ones. With `keep` false
        only pages stay that another lease released with `keep` or still holds; the freed ones are returned."""
        self._leases.remove(lease)
        self._promised -= lease.promised
        freed = []
        for page in reversed(lease.pages):
            self._holders[page] -= 1
            if keep and page in self._key_of:
                self._trusted.add(page)
            if self._holders[page]:
                continue
            if page in self._trusted:
                self._cached[page] = None
            else:
                self._forget(page)
                self._free.append(page)
                freed.append(page)
        lease.pages, lease.promised, lease.shared = [], 0, 0
        return freed

    def check_integrity(self) -> None:
        """Raises IntegrityError unless every page is owned exactly once and every promise can be kept."""
        held = [0] * (self.pages_total + 1)
        for lease in self._leases:
            if len(set(lease.pages)) != len(lease.pages):
                raise IntegrityError(f"a lease holds a page twice: {lease.pages}")
            for page in lease.pages:
                held[page] += 1
        if held != self._holders:
            raise IntegrityError(f"holders {self._holders} are not what the leases hold, {held}")
        used = [page for page, holders in enumerate(held) if holders]
        if sorted([*self._free, *self._cached, *used]) != list(range(1, self.pages_total + 1)):
            raise IntegrityError(f"free {self._free}, cached {list(self._cached)}, used {used}: not each page once")
        if {page: key for key, page in self._page_of.items()} != self._key_of:
            raise IntegrityError("keys and pages do not name each other")
        if not self._cached.keys() <= self._trusted <= self._key_of.keys() or self._key_of.keys() & set(self._free):
            raise IntegrityError("a cached or trusted page has no key, or a free one has")
        promised = sum(lease.promised for lease in self._leases)
        if promised != self._promised or promised > len(self._free) + len(self._cached):
            raise IntegrityError(f"{promised} pages promised ({self._promised} on record), too few free or cached")

    def _match(self, keys: PrefixKeys, start: int, end: int) -> list[int]:
        matched = []
        for index in range(start, end):
            page = self._page_of.get(keys.key(index))
            if page is None:
                break
            matched.append(page)
        return matched

    def _share(self, lease: Lease, pages: list[int]) -> None:
        for page in pages:
            self._cached.pop(page, None)
            self._holders[page] += 1
        lease.pages += pages
        lease.shared += len(pages)
        lease.promised -= len(pages)
        self._promised -= len(pages)

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._cached.popitem(last=False)
            self._forget(page)
        self._holders[page] = 1
        return page

    def _forget(self, page: int) -> None:
        self._trusted.discard(page)
        key = self._key_of.pop(page, None)
        if key is not None:
            del self._page_of[key]
