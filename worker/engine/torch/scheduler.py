"""Decides who runs: admits by lane and arrival, cuts prompts into chunks, lists who decodes. Pure Python.

It knows sequences and the block cache's accounts; it computes nothing and knows no tensors.

    waiting ── admit: a slot, and all pages it may ever need ──► prefilling ── last chunk ──► decoding ──► removed
"""

import bisect
from collections.abc import Sequence as Many
from dataclasses import dataclass

from worker.engine.torch.block_cache import BlockCache, IntegrityError
from worker.engine.torch.sequence import Sequence, Stage


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `start` to `start + count` of a sequence, to be computed in the next prefill forward."""

    sequence: Sequence
    start: int
    count: int

    @property
    def completes(self) -> bool:
        """Whether the sequence's first token can be drawn after it."""
        return self.start + self.count == self.sequence.prefill_len


class Scheduler:
    """`slots` sequences at a time; at most `prefill_chunk` prompt tokens per step, so that those who decode wait no
    longer than that between two tokens. Several short prompts may share a step's budget."""

    def __init__(self, cache: BlockCache, slots: int, prefill_chunk: int) -> None:
        if slots < 1 or prefill_chunk < 1:
            raise ValueError(f"slots and prefill_chunk must be at least 1, got {slots} and {prefill_chunk}")
        self._cache = cache
        self._prefill_chunk = prefill_chunk
        self._slots = slots
        self._free_slots = list(range(slots - 1, -1, -1))
        self._waiting: list[Sequence] = []
        self._prefilling: list[Sequence] = []
        self._decoding: list[Sequence] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._prefilling) + len(self._decoding)

    @property
    def prefilling(self) -> Many[Sequence]:
        """In order of admission."""
        return self._prefilling

    @property
    def decoding(self) -> Many[Sequence]:
        """In the order in which they joined."""
        return self._decoding

    def add(self, sequence: Sequence) -> None:
        """Behind those of its lane, before those of later ones."""
        bisect.insort(self._waiting, sequence, key=lambda waiting: waiting.generation.lane)

    def admit(self) -> list[Sequence]:
        """Lets those in who wait first, while there is room and prefill budget. Nobody overtakes within a lane: a long
        prompt that waits for pages gets them before a shorter one behind it."""
        admitted = []
        pending = sum(s.ready_until - s.computed for s in self._prefilling)
        while self._waiting and self._free_slots and pending < self._prefill_chunk:
            sequence = self._waiting[0]
            lease = self._cache.open(sequence.keys, sequence.reusable_pages, sequence.max_kv)
            if lease is None:
                break
            self._waiting.pop(0)
            sequence.lease = lease
            sequence.slot = self._free_slots.pop()
            sequence.stage = Stage.PREFILL
            self._count_reused(sequence)
            self._prefilling.append(sequence)
            admitted.append(sequence)
            pending += sequence.ready_until - sequence.computed
        return admitted

    def chunks(self) -> list[Chunk]:
        """Cuts this step's prefill. Each chunk's full pages become findable at once, so a twin later in the same list
        reuses them: a forward writes all keys and values of a layer before any attention of that layer reads."""
        chunks = []
        budget = self._prefill_chunk
        for sequence in self._prefilling:
            if budget == 0:
                break
            if self._cache.reuse(sequence.lease, sequence.keys, sequence.reusable_pages):
                self._count_reused(sequence)
            count = min(budget, sequence.ready_until - sequence.computed)
            if count > 0:
                chunks.append(self._cut(sequence, count))
                budget -= count
        for chunk in chunks:
            if chunk.completes:
                self._prefilling.remove(chunk.sequence)
                self._decoding.append(chunk.sequence)
                chunk.sequence.stage = Stage.DECODE
        return chunks

    def grow(self, sequence: Sequence) -> int | None:
        """Makes room for the sequence's next token; returns the page that this took, if any."""
        lease = sequence.lease
        held = len(lease.pages)
        if held * self._cache.page_size > sequence.computed:
            return None
        self._cache.grow(lease, sequence.computed + 1)
        return lease.pages[held]

    def advance(self, sequence: Sequence) -> None:
        """Counts a decoded token whose key and value are in the cache and finite; a page that it fills is findable."""
        sequence.computed += 1
        if sequence.computed % self._cache.page_size == 0:
            page = sequence.computed // self._cache.page_size - 1
            self._cache.register(sequence.lease, page, sequence.keys.key(page))

    def remove(self, sequence: Sequence) -> list[int]:
        """Takes a sequence out at any stage; frees its slot and pages. Returns pages to be scrubbed: what a sequence
        wrote before its logits were first seen finite may hold NaN, which would reach the pages' next user through
        masked positions (0 × NaN)."""
        if sequence.stage is Stage.WAITING:
            self._waiting.remove(sequence)
            sequence.stage = Stage.ENDED
            return []
        (self._prefilling if sequence.stage is Stage.PREFILL else self._decoding).remove(sequence)
        sequence.stage = Stage.ENDED
        self._free_slots.append(sequence.slot)
        freed = self._cache.release(sequence.lease, keep=sequence.proven)
        return [] if sequence.proven else freed

    def check_integrity(self) -> None:
        """Raises IntegrityError unless each slot is free or has one user, and only those who run hold pages."""
        running = [*self._prefilling, *self._decoding]
        slots = sorted([*self._free_slots, *(sequence.slot for sequence in running)])
        if slots != list(range(self._slots)):
            raise IntegrityError(f"slots {slots} are not each of {self._slots} once")
        if self._cache.leases != len(running):
            raise IntegrityError(f"{self._cache.leases} leases for {len(running)} running sequences")

    def _count_reused(self, sequence: Sequence) -> None:
        sequence.computed = sequence.reused = sequence.lease.shared * self._cache.page_size

    def _cut(self, sequence: Sequence, count: int) -> Chunk:
        chunk = Chunk(sequence, sequence.computed, count)
        sequence.computed += count
        self._cache.grow(sequence.lease, sequence.computed)
        for page in range(chunk.start // self._cache.page_size, sequence.computed // self._cache.page_size):
            self._cache.register(sequence.lease, page, sequence.keys.key(page))
        return chunk
