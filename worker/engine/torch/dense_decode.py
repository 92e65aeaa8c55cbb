"""Decode attention for a CPU in fp32: keeps a dense copy of the keys and values of the sequences in decode.

Gathering pages costs as much as attention itself there. A sequence's copy is made from its pages when it starts to
decode and then grows by its own tokens, so a copy always equals the pages that it was made from.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

# Tokens that a copy has room for: this, doubled as often as needed. Sequences of one room attend in one call, so a
# long sequence costs its short companions nothing.
_LEAST_ROOM = 256
# Lengths are rounded up to this, so that shapes change seldom.
_STRIDE = 16

# The pages that hold a sequence's first tokens, and how many tokens these are.
_Prefix = tuple[tuple[int, ...], int]


@dataclass(frozen=True, slots=True)
class _Decoding:
    """A sequence of the batch: `index` is its place there, `kept` names what a copy of it must hold already."""

    index: int
    pages: tuple[int, ...]
    kv_len: int
    page_size: int

    @property
    def begins_page(self) -> bool:
        return (self.kv_len - 1) % self.page_size == 0

    @property
    def kept(self) -> _Prefix:
        return self._prefix(self.kv_len - 1)

    @property
    def grown(self) -> _Prefix:
        return self._prefix(self.kv_len)

    def _prefix(self, tokens: int) -> _Prefix:
        return self.pages[: -(-tokens // self.page_size)], tokens


@dataclass(slots=True)
class _Copies:
    """Copies with room for `room` tokens each, one per row; `held` names what each row holds, None when its pages were
    written since. The first `placed` are of the last step that was not of newcomers alone; `newcomers` counts the steps
    since that were. `data` is `[layers, 2, rows, kv_heads, room, head_dim]`, zero behind a sequence's last token."""

    room: int
    data: torch.Tensor
    held: list[_Prefix | None] = field(default_factory=list)
    placed: int = 0
    newcomers: int = 0

    def append(self, sequences: list[_Decoding]) -> dict[int, _Decoding]:
        """Puts these sequences behind all others; they are to be filled. Returns them by row. Two steps of newcomers
        may follow each other, a first decode and a prompt's last token; after more of them the earlier ones are gone,
        or have more of their prompt to come."""
        first = len(self.held) if self.newcomers % 2 else self.placed
        self.newcomers += 1
        self._make_rows(first + len(sequences))
        self.held[first:] = [sequence.grown for sequence in sequences]
        return dict(enumerate(sequences, first))

    def place(self, sequences: list[_Decoding]) -> tuple[dict[int, _Decoding], list[int]]:
        """Gives these sequences the first rows, keeps the copies that are still right, and drops those of all other
        sequences. Returns the sequences by row, and the rows that are to be filled."""
        by_prefix: defaultdict[_Prefix, list[int]] = defaultdict(list)
        for row, prefix in enumerate(self.held):
            if prefix is not None:
                by_prefix[prefix].append(row)
        rows: dict[int, _Decoding] = {}
        homeless = []
        for sequence in sequences:
            candidates = by_prefix.get(sequence.kept)
            if candidates:
                rows[candidates.pop()] = sequence
            else:
                homeless.append(sequence)
        self._make_rows(len(sequences))
        gaps = [row for row in range(len(sequences)) if row not in rows]
        for row in [row for row in rows if row >= len(sequences)]:
            gap = gaps.pop()
            self.data[:, :, gap] = self.data[:, :, row]
            rows[gap] = rows.pop(row)
        rows |= zip(gaps, homeless, strict=True)
        self.held = [rows[row].grown for row in range(len(sequences))]
        self.placed, self.newcomers = len(sequences), 0
        return rows, gaps

    def _make_rows(self, rows: int) -> None:
        if rows <= self.data.shape[2]:
            return
        layers, halves, old, *rest = self.data.shape
        data = self.data.new_zeros(layers, halves, rows, *rest)
        data[:, :, :old] = self.data
        self.data = data


class DenseDecode:
    """See DecodeAttention. A copy lives as long as its sequence is in every step that knows any of its sequences: a
    step of newcomers alone (a prompt's last token, say) costs the others nothing. The copies take at most twice the
    memory of the pages that they are made from."""

    def __init__(self, caches: torch.Tensor) -> None:
        self._caches = caches
        self._page_size = caches.shape[3]
        self._copies: dict[int, _Copies] = {}

    @property
    def bytes(self) -> int:
        """What the copies take."""
        return sum(copies.data.nbytes for copies in self._copies.values())

    def forget(self, pages: Iterable[int]) -> None:
        written = set(pages)
        if not written:
            return
        for copies in self._copies.values():
            copies.held = [p if p is not None and written.isdisjoint(p[0]) else None for p in copies.held]

    def plan(self, pages: torch.Tensor, kv_lens: list[int]) -> "DensePlan":
        sequences = [
            _Decoding(index, tuple(row), kv_len, self._page_size)
            for index, (row, kv_len) in enumerate(zip(pages.tolist(), kv_lens, strict=True))
        ]
        # Whoever begins a page is its new owner: copies of what it held must not serve those who share it already.
        self.forget(s.pages[(s.kv_len - 1) // s.page_size] for s in sequences if s.begins_page)
        by_room: defaultdict[int, list[_Decoding]] = defaultdict(list)
        for sequence in sequences:
            by_room[_room(sequence.kv_len)].append(sequence)
        held = {prefix for copies in self._copies.values() for prefix in copies.held}
        newcomers = held.isdisjoint(sequence.kept for sequence in sequences)
        if not newcomers:
            self._copies = {room: copies for room, copies in self._copies.items() if room in by_room}
        groups = []
        for room, members in by_room.items():
            copies = self._copies.get(room) or self._new_copies(room)
            if newcomers:
                rows = copies.append(members)
                fills = list(rows)
            else:
                rows, fills = copies.place(members)
            self._copies[room] = copies
            groups.append(_group(copies, rows, fills, alone=len(by_room) == 1))
        return DensePlan(self._caches, groups)

    def _new_copies(self, room: int) -> _Copies:
        layers, _, _, _, kv_heads, head_dim = self._caches.shape
        return _Copies(room, self._caches.new_zeros(layers, 2, 0, kv_heads, room, head_dim))


def _room(tokens: int) -> int:
    room = _LEAST_ROOM
    while room < tokens:
        room *= 2
    return room


@dataclass(frozen=True, slots=True)
class _Fill:
    """A copy that is to be made from its pages, `tokens` long."""

    row: int
    pages: torch.Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The sequences of one room, in the order of their rows, which start at `first`. `order` are their places in the
    batch, None when the batch has the same order. `writes` are the places of the new keys and values in a layer's data
    seen as `[tokens, head_dim]`; `mask` is `[sequences × kv_heads, 1, length]`, 0 or -inf."""

    data: torch.Tensor
    first: int
    order: torch.Tensor | None
    fills: list[_Fill]
    writes: torch.Tensor
    mask: torch.Tensor


def _group(copies: _Copies, rows: dict[int, _Decoding], fills: list[int], alone: bool) -> _Group:
    _, _, all_rows, kv_heads, room, _ = copies.data.shape
    first = min(rows)
    placed = [rows[row] for row in sorted(rows)]
    order = [sequence.index for sequence in placed]
    kv_lens = torch.tensor([sequence.kv_len for sequence in placed])
    length = min(-(-int(kv_lens.max()) // _STRIDE) * _STRIDE, room)
    mask = torch.zeros(len(placed), length).masked_fill_(torch.arange(length) >= kv_lens[:, None], float("-inf"))
    half = torch.arange(2)[None, :, None] * (all_rows * kv_heads * room)
    head = torch.arange(first * kv_heads, (first + len(placed)) * kv_heads).view(-1, 1, kv_heads) * room
    return _Group(
        data=copies.data,
        first=first,
        order=None if alone and order == list(range(len(placed))) else torch.tensor(order),
        fills=[_Fill(row, torch.tensor(rows[row].grown[0]), rows[row].kv_len) for row in fills],
        writes=(half + head + (kv_lens - 1)[:, None, None]).flatten(),
        mask=mask.repeat_interleave(kv_heads, dim=0)[:, None],
    )


class DensePlan:
    """See DecodePlan. Copies are made layer by layer, after the writes of this forward: a sequence's pages may hold a
    prefix that another sequence computes in the same forward."""

    def __init__(self, caches: torch.Tensor, groups: list[_Group]) -> None:
        self._caches = caches
        self._groups = groups

    def attend(self, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        for group in self._groups:
            for fill in group.fills:
                _fill(fill, group.data[layer], self._caches[layer])
        first = self._groups[0]
        if first.order is None:
            return _attend(first, layer, query, keys_values)
        out = query.new_empty(query.shape[0], query.shape[1] * query.shape[2])
        for group in self._groups:
            attended = _attend(group, layer, query[group.order], keys_values[group.order])
            out.index_copy_(0, group.order, attended)  # type: ignore[arg-type]
        return out


def _fill(fill: _Fill, data: torch.Tensor, cache: torch.Tensor) -> None:
    # [pages, 2, page_size, kv_heads, head_dim] → [2, kv_heads, tokens, head_dim]
    gathered = cache[fill.pages].permute(1, 3, 0, 2, 4).flatten(2, 3)
    data[:, fill.row, :, : fill.tokens] = gathered[:, :, : fill.tokens]
    data[:, fill.row, :, fill.tokens :] = 0.0


def _attend(group: _Group, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
    data = group.data[layer]
    sequences, _, head_dim = query.shape
    data.view(-1, head_dim).index_copy_(0, group.writes, keys_values.reshape(-1, head_dim))
    used = data[:, group.first : group.first + sequences].flatten(1, 2)[:, :, : group.mask.shape[2]]
    keys, values = used[0], used[1]
    # The heads that share a key head are its queries: grouped-query attention without copies of the keys.
    grouped = query.reshape(keys.shape[0], -1, head_dim)
    scores = torch.baddbmm(group.mask, grouped, keys.transpose(1, 2), alpha=head_dim**-0.5)
    return torch.bmm(scores.softmax(dim=-1), values).view(sequences, -1)
