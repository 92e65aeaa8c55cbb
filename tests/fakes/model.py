"""A model of a few numbers that fits the engine's Model protocol: its next token depends on every token and its place,
read through the paged cache, so that a wrong page, slot or position changes the answer. The same in any batch."""

import torch

from worker.engine.torch.batch import ForwardBatch

VOCAB = 61
HIDDEN = 8
TOKENS_PER_TILE = 4
TILE_SIZE = 2
POISON = 13


class FakeModel:
    """`embed` of POISON is NaN; only a bias makes the model draw it. `forwards` keeps what each forward was asked,
    `encoded` how many tiles at a time."""

    vocab_size = VOCAB
    hidden = HIDDEN
    tokens_per_tile = TOKENS_PER_TILE
    tile_size = TILE_SIZE
    device = torch.device("cpu")
    dtype = torch.float64

    def __init__(self, context_length: int = 512, vocab_size: int = VOCAB) -> None:
        self.context_length = context_length
        self.trained_length = context_length
        self.vocab_size = vocab_size
        maker = torch.Generator().manual_seed(5)
        self._table = torch.randn(vocab_size, HIDDEN, generator=maker, dtype=torch.float64)
        self._head = torch.randn(HIDDEN, vocab_size, generator=maker, dtype=torch.float64)
        self._tile = torch.randn(3 * TILE_SIZE**2, TOKENS_PER_TILE * HIDDEN, generator=maker, dtype=torch.float64)
        self._cache = torch.zeros(0)
        self.forwards: list[ForwardBatch] = []
        self.encoded: list[int] = []

    def allocate_cache(self, pages: int, page_size: int) -> None:
        self._cache = torch.zeros(pages, 2, page_size, HIDDEN, dtype=self.dtype)

    def cache_bytes_per_page(self, page_size: int) -> int:
        return 2 * page_size * HIDDEN * 8

    def copy_pages(self, sources: list[int], targets: list[int]) -> None:
        self._cache[targets] = self._cache[sources]

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        embeds = self._table[ids]
        embeds[ids == POISON] = torch.nan
        return embeds

    def encode_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        self.encoded.append(len(pixels))
        flat = pixels.to(self.dtype).flatten(1) / 255
        return torch.stack([(row @ self._tile).view(TOKENS_PER_TILE, HIDDEN) for row in flat])

    def forward(self, embeds: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        self.forwards.append(batch)
        page_size = self._cache.shape[2]
        pages, offsets = batch.slots // page_size, batch.slots % page_size
        angles = batch.positions[:, None].to(self.dtype) * torch.arange(1, HIDDEN + 1) * 0.37
        self._cache[pages, 0, offsets] = embeds * angles.cos()
        self._cache[pages, 1, offsets] = embeds * angles.sin()
        out, row = [], 0
        for b, (q_len, kv_len) in enumerate(zip(batch.q_lens, batch.kv_lens, strict=True)):
            # Reads whole pages and masks by zero, as a real kernel may: NaN in a page's tail would show.
            seen = self._cache[batch.pages[b].long()].transpose(0, 1).flatten(1, 2)
            for position in range(kv_len - q_len, kv_len):
                age = position - torch.arange(seen.shape[1])
                weight = torch.where(age >= 0, 0.9 ** age.clamp_min(0), 0.0).to(self.dtype)
                mixed = weight @ seen[0] - weight @ seen[1]
                out.append(torch.tanh(mixed + embeds[row]))
                row += 1
        return torch.stack(out)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.stack([(row @ self._head).float() for row in hidden]) * 3
        logits[:, POISON] -= 60.0
        return logits
