"""Both ways to attend a decode step give what plain attention over a sequence's own tokens gives, whoever joins or
leaves and whatever the pages held before."""

import random
from dataclasses import dataclass

import pytest
import torch

from worker.engine.torch.attention import DecodeAttention, PagedAttention
from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.dense_decode import DenseDecode
from worker.engine.torch.gathered_decode import GatheredDecode

pytestmark = pytest.mark.integration

_LAYERS, _PAGES, _SIZE, _HEADS, _KV_HEADS, _WIDTH = 2, 400, 4, 4, 2, 8


@dataclass
class _Sequence:
    """What a sequence holds: keys and values `[tokens, 2, kv_heads, width]` of every layer, and their pages. In its
    first step it takes over what `parent` has then, which must be whole pages."""

    pages: list[int]
    tokens: list[torch.Tensor]
    parent: "_Sequence | None" = None


class _World:
    """A cache full of NaN, sequences with random keys and values, and the truth about them."""

    def __init__(self, kind: type[DenseDecode] | type[GatheredDecode], seed: int) -> None:
        self.rng = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        caches = torch.full((_LAYERS, _PAGES + 1, 2, _SIZE, _KV_HEADS, _WIDTH), float("nan"))
        caches[:, -1] = 0.0
        self.decode: DecodeAttention = kind(caches)
        self.attention = PagedAttention(caches, self.decode)
        self.caches = caches
        self.free = list(range(_PAGES))
        self.rng.shuffle(self.free)

    def start(self, tokens: int) -> _Sequence:
        sequence = _Sequence([], [torch.empty(0, 2, _KV_HEADS, _WIDTH)] * _LAYERS)
        if tokens:
            self.step([(sequence, tokens)])
        return sequence

    def stop(self, sequence: _Sequence) -> None:
        self.free[:0] = sequence.pages
        sequence.pages = []

    def step(self, parts: list[tuple[_Sequence, int]]) -> None:
        """Runs one forward of random queries through every layer and compares each sequence with the truth."""
        total = sum(count for _, count in parts)
        new = torch.randn(_LAYERS, total, 2, _KV_HEADS, _WIDTH, generator=self.generator)
        queries = torch.randn(_LAYERS, total, _HEADS, _WIDTH, generator=self.generator)
        start = 0
        for sequence, count in parts:
            if sequence.parent is not None:
                sequence.pages, sequence.tokens = list(sequence.parent.pages), list(sequence.parent.tokens)
                sequence.parent = None
            for layer in range(_LAYERS):
                sequence.tokens[layer] = torch.cat((sequence.tokens[layer], new[layer, start : start + count]))
            while len(sequence.pages) * _SIZE < len(sequence.tokens[0]):
                sequence.pages.append(self.free.pop())
            start += count
        plan = self.attention.plan(self._batch(parts))
        for layer in range(_LAYERS):
            out = plan.attend(layer, queries[layer], new[layer]).view(total, _HEADS, _WIDTH)
            start = 0
            for sequence, count in parts:
                rows = slice(start, start + count)
                torch.testing.assert_close(out[rows], _plain(queries[layer][rows], sequence.tokens[layer]))
                start += count

    def _batch(self, parts: list[tuple[_Sequence, int]]) -> ForwardBatch:
        table = torch.zeros(len(parts), max(len(sequence.pages) for sequence, _ in parts) + 2, dtype=torch.int32)
        positions, slots = [], []
        for row, (sequence, count) in zip(table, parts, strict=True):
            row[: len(sequence.pages)] = torch.tensor(sequence.pages)
            own = torch.arange(len(sequence.tokens[0]))[-count:]
            positions.append(own)
            slots.append(row[own // _SIZE] * _SIZE + own % _SIZE)
        counts = tuple(count for _, count in parts)
        lengths = tuple(len(sequence.tokens[0]) for sequence, _ in parts)
        return ForwardBatch(torch.cat(positions), torch.cat(slots).long(), table, counts, lengths)


def _plain(query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
    """`[q, heads, width]` over `[tokens, 2, kv_heads, width]`, the queries being the last tokens."""
    keys, values = (half.repeat_interleave(_HEADS // _KV_HEADS, dim=1) for half in keys_values.unbind(1))
    scores = torch.einsum("qhd,khd->hqk", query, keys) * _WIDTH**-0.5
    tokens, total = query.shape[0], keys.shape[0]
    unseen = torch.arange(total) > torch.arange(total - tokens, total)[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(unseen, float("-inf")).softmax(-1), values)


_KINDS = pytest.mark.parametrize("kind", [DenseDecode, GatheredDecode])


@_KINDS
@pytest.mark.parametrize("seed", range(4))
def test_decode_of_sequences_that_join_leave_and_change_places_equals_plain_attention(
    kind: type[DenseDecode] | type[GatheredDecode], seed: int
) -> None:
    world = _World(kind, seed)
    running = [world.start(world.rng.randrange(1, 60)) for _ in range(4)]
    for _ in range(30):
        action = world.rng.random()
        if action < 0.2 and len(running) < 8:
            running.append(world.start(world.rng.choice([0, 1, 3, 4, 5, 40])))
        elif action < 0.35 and len(running) > 1:
            world.stop(running.pop(world.rng.randrange(len(running))))
        elif action < 0.45:
            world.rng.shuffle(running)
        elif action < 0.55:
            world.step([(sequence, world.rng.choice([1, 1, 6])) for sequence in running])
            continue
        part = running if action < 0.9 else world.rng.sample(running, world.rng.randrange(1, len(running) + 1))
        world.step([(sequence, 1) for sequence in part])


@_KINDS
def test_decode_of_sequences_that_outgrow_their_room_equals_plain_attention(
    kind: type[DenseDecode] | type[GatheredDecode],
) -> None:
    world = _World(kind, 7)
    running = [world.start(tokens) for tokens in (5, 250, 254, 300, 509)]
    for _ in range(8):
        world.step([(sequence, 1) for sequence in running])


@_KINDS
def test_decode_of_a_sequence_on_another_s_copied_pages_equals_plain_attention(
    kind: type[DenseDecode] | type[GatheredDecode],
) -> None:
    world = _World(kind, 8)
    source, victim = world.start(10), world.start(10)
    world.step([(source, 1), (victim, 1)])
    copy = _Sequence(victim.pages, list(source.tokens))
    world.attention.copy_pages(source.pages, copy.pages)
    world.step([(source, 1), (copy, 1)])
    world.step([(copy, 1), (source, 1)])


@_KINDS
def test_decode_of_a_sequence_whose_prefix_is_written_in_the_same_forward_equals_plain_attention(
    kind: type[DenseDecode] | type[GatheredDecode],
) -> None:
    world = _World(kind, 10)
    for tokens in (1, 5):
        running = world.start(9)
        world.step([(running, 1)])
        writer = world.start(2 * _SIZE - tokens)
        sharer = _Sequence([], [], parent=writer)
        world.step([(writer, tokens), (sharer, 1)])
        world.step([(sharer, 1), (running, 1), (writer, 1)])


def test_dense_decode_step_of_newcomers_keeps_the_copies_of_others() -> None:
    world = _World(DenseDecode, 9)
    running = [world.start(20) for _ in range(3)]
    world.step([(sequence, 1) for sequence in running])
    newcomer = world.start(1)
    # A copy that is kept does not read its pages again, so their loss goes unseen.
    for sequence in running:
        world.caches[:, sequence.pages[:-2]] = float("nan")
    world.step([(sequence, 1) for sequence in (*running, newcomer)])


def test_dense_decode_keeps_no_copies_of_newcomers_that_never_come_back() -> None:
    """Answers of one token: prompts whose last token is computed by itself, and no decode step after it."""
    world = _World(DenseDecode, 10)
    running = [world.start(20) for _ in range(2)]
    world.step([(sequence, 1) for sequence in running])
    taken = []
    for _ in range(30):
        world.stop(world.start(1))
        taken.append(world.decode.bytes)
    assert max(taken) == taken[1]
    world.step([(sequence, 1) for sequence in running])
