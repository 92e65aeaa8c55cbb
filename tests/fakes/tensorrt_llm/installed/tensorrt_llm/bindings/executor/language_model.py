"""The torch decoder over the engine's weights and a paged cache; visual tokens are rows of a table of all requests."""

import torch

from tensorrt_llm.bindings.executor.engine_folder import EngineFolder
from tensorrt_llm.bindings.executor.group import Leader
from worker.engine.torch.attention import PagedAttention
from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.dense_decode import DenseDecode
from worker.engine.torch.rope import Rope


class LanguageModel:
    """`tables` is the one buffer that every request's prompt table is copied into, an equal part each."""

    def __init__(self, folder: EngineFolder, leader: Leader, blocks: int, requests: int) -> None:
        config = folder.decoder_config
        self.vocab_size = folder.vocab_size
        self.hidden = config.hidden
        self.dtype = folder.dtype
        self.budget = folder.build["max_prompt_embedding_table_size"] // requests
        self.tables = torch.zeros(requests * self.budget, config.hidden)
        self._decoder = folder.load()
        self._leader = leader
        self._rope = Rope(config, torch.device("cpu"), torch.float32)
        size = folder.tokens_per_block
        # Page 0 is nobody's.
        self._caches = torch.zeros(config.layers, blocks + 1, 2, size, config.kv_heads, config.head_dim)
        self._attention = PagedAttention(self._caches, DenseDecode(self._caches))

    def put_table(self, slot: int, table: torch.Tensor) -> None:
        """As it is now: whoever changes a table that runs changes what is seen. Raises RuntimeError."""
        if table.dtype != self.dtype:
            raise RuntimeError(f"Prompt embedding table has dtype {table.dtype}, the engine has {self.dtype}")
        if table.shape[1] != self.hidden:
            raise RuntimeError(f"Prompt embedding table has width {table.shape[1]}, the engine has {self.hidden}")
        if len(table) > self.budget:
            raise RuntimeError(f"Prompt embedding table has {len(table)} rows, at most {self.budget} fit a request")
        self.tables[slot * self.budget : slot * self.budget + len(table)] = table.float()

    def embed(self, ids: list[int], slot: int) -> torch.Tensor:
        """Ids from `vocab_size` on are rows behind the slot's first. Beyond its own there is somebody else's."""
        places = torch.tensor(ids)
        text = places < self.vocab_size
        embeds = self._decoder.table[places.where(text, 0)]
        if not text.all():
            rows = places - self.vocab_size + slot * self.budget
            inside = ~text & (rows < len(self.tables))
            embeds[~text] = 0.0
            embeds[inside] = self.tables[rows[inside]]
        return embeds

    def copy_block(self, source: int, target: int) -> None:
        if source != target:
            self._attention.copy_pages([source], [target])

    @torch.inference_mode()
    def logits(self, embeds: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        """float32 `[sequences, vocab]`, behind the last token of each."""
        hidden = self._decoder(embeds, self._rope.at(batch.positions, None), self._attention.plan(batch))
        ends = torch.tensor(batch.q_lens).cumsum(0) - 1
        return self._leader.logits(hidden[ends], self._decoder.logits)
