"""From the scheduler's chunks to one packed prefill forward: token embeddings with images put in, and the places where
keys and values go."""

from collections.abc import Sequence as Many

import numpy as np
import torch

from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.model import Model
from worker.engine.torch.scheduler import Chunk


def embed_chunks(chunks: Many[Chunk], model: Model) -> torch.Tensor:
    """[T, hidden], chunk after chunk. Every image that a chunk touches must have been encoded."""
    ids = np.concatenate([c.sequence.inputs[c.start : c.start + c.count] for c in chunks])
    embeds = model.embed(torch.from_numpy(ids).to(model.device))
    offset = 0
    for chunk in chunks:
        for visual in chunk.sequence.visuals:
            first, end = np.searchsorted(visual.positions, (chunk.start, chunk.start + chunk.count)).tolist()
            if first < end:
                assert visual.embedding is not None
                places = torch.from_numpy(visual.positions[first:end] - chunk.start + offset).to(model.device)
                embeds[places] = visual.embedding[first:end].to(embeds.dtype)
        offset += chunk.count
    return embeds


def forward_batch(chunks: Many[Chunk], page_size: int, device: torch.device) -> ForwardBatch:
    kv_lens = tuple(c.start + c.count for c in chunks)
    table = np.zeros((len(chunks), -(-max(kv_lens) // page_size)), dtype=np.int32)
    positions, slots, lengths = [], [], []
    for row, (chunk, kv_len) in enumerate(zip(chunks, kv_lens, strict=True)):
        held = -(-kv_len // page_size)
        table[row, :held] = chunk.sequence.lease.pages[:held]
        place = np.arange(chunk.start, kv_len)
        positions.append(place)
        lengths.append(chunk.sequence.lengths_at(place))
        slots.append(table[row, place // page_size].astype(np.int64) * page_size + place % page_size)
    scaled = any(each[-1] > chunk.sequence.trained_length for chunk, each in zip(chunks, lengths, strict=True))
    return ForwardBatch(
        positions=torch.from_numpy(np.concatenate(positions)).to(device),
        slots=torch.from_numpy(np.concatenate(slots)).to(device),
        pages=torch.from_numpy(table).to(device),
        q_lens=tuple(c.count for c in chunks),
        kv_lens=kv_lens,
        lengths=torch.from_numpy(np.concatenate(lengths)).to(device) if scaled else None,
    )


def last_rows(chunks: Many[Chunk]) -> list[int]:
    """Where in the packed forward the last token of each chunk that completes its prompt stands."""
    ends = np.cumsum([c.count for c in chunks]).tolist()
    return [end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.completes]
