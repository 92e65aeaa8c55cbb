"""Blocks of the KV cache: what a request may reuse, and what it leaves behind for others when it has ended."""

from array import array
from hashlib import blake2b

from worker.engine.torch.block_cache import BlockCache, Lease, pages_for


class BlockKeys:
    """A block is named by the pairs of token and extra id in it and before it, and by the salt."""

    def __init__(self, ids: list[int], extra_ids: list[int], size: int, salt: int | None) -> None:
        self._ids, self._extra_ids, self._size = ids, extra_ids, size
        self._keys = [repr(salt).encode()]

    def key(self, block: int) -> bytes:
        while len(self._keys) <= block + 1:
            self._keys.append(self._next(len(self._keys) - 1))
        return self._keys[block + 1]

    def pairs(self, block: int) -> list[tuple[int, int]]:
        """Of the block, which need not be full. What was generated has no extra ids."""
        first, end = block * self._size, (block + 1) * self._size
        ids = self._ids[first:end]
        extra = self._extra_ids[first:end]
        return list(zip(ids, extra + [0] * (len(ids) - len(extra)), strict=True))

    def before(self, block: int) -> bytes:
        return self.key(block - 1) if block else self._keys[0]

    def _next(self, block: int) -> bytes:
        pairs = self.pairs(block)
        assert len(pairs) == self._size
        text = array("Q", [number for pair in pairs for number in pair]).tobytes()
        return blake2b(self._keys[-1] + text, digest_size=32).digest()


class Held:
    """The blocks of one request. `computed` tokens are in the cache; `reused` and `new` count blocks."""

    def __init__(self, lease: Lease, keys: BlockKeys, computed: int, reused: int) -> None:
        self.lease, self.keys, self.computed, self.reused = lease, keys, computed, reused
        self.copy: tuple[int, int] | None = None


class KvBlocks:
    def __init__(self, blocks: int, size: int, reuse: bool, partial: bool) -> None:
        self.total, self.size = blocks, size
        self._reuse, self._partial = reuse, partial
        self._cache = BlockCache(blocks, size)
        self._behind: dict[bytes, dict[tuple[tuple[int, int], ...], BlockKeys]] = {}
        self.allocated = self.new = self.reused = self.missed = 0

    @property
    def free(self) -> int:
        return self._cache.pages_free + self._cache.pages_cached

    def open(self, keys: BlockKeys, prompt: int, most: int) -> Held | None:
        """Room for `most` tokens, or None: nobody who was let in is thrown out again. The prompt's last token is
        always computed."""
        lease = self._cache.open(keys, (prompt - 1) // self.size if self._reuse else 0, most)  # type: ignore[arg-type]
        if lease is None:
            return None
        held = Held(lease, keys, lease.shared * self.size, lease.shared)
        if self._reuse and self._partial:
            self._copy_part(held, prompt)
        blocks = pages_for(prompt, self.size)
        self.allocated += blocks
        self.new += blocks - lease.shared
        self.reused += held.reused
        self.missed += blocks - held.reused
        return held

    def grow(self, held: Held, tokens: int) -> None:
        self._cache.grow(held.lease, tokens)

    def close(self, held: Held) -> None:
        """Full blocks can be found from now on, not before."""
        if self._reuse:
            for block in range(held.computed // self.size):
                key = held.keys.key(block)
                self._cache.register(held.lease, block, key)
                self._behind.setdefault(held.keys.before(block), {})[tuple(held.keys.pairs(block))] = held.keys
        self._cache.release(held.lease)
        self._cache.check_integrity()

    def _copy_part(self, held: Held, prompt: int) -> None:
        """Finds a block that begins as the next one does; its beginning is copied, not shared."""
        block = held.lease.shared
        wanted = held.keys.pairs(block)[: prompt - 1 - block * self.size]
        best, source = 0, None
        for pairs, keys in self._behind.get(held.keys.before(block), {}).items():
            common = next((n for n, (a, b) in enumerate(zip(wanted, pairs, strict=False)) if a != b), len(wanted))
            if common > best:
                best, source = common, keys
        lease = source and self._cache.open(source, block + 1, (block + 1) * self.size)  # type: ignore[arg-type]
        if not lease:
            return
        if lease.shared == block + 1:
            held.computed += best
            held.reused += 1
            self._cache.grow(held.lease, held.computed)
            held.copy = lease.pages[block], held.lease.pages[block]
        self._cache.release(lease)
