"""What the executor tells of its iterations, added up. It tells each of them once."""

from collections import Counter
from typing import Any

from worker.engine.torch.counters import Counters


class Statistics:
    """`counters` counts tokens; the rest is the executor's own account. Blocks that are free may hold keys that can be
    reused: the executor does not say how many."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.steps = 0
        self.steps_by_batch: Counter[int] = Counter()
        self.blocks_free = 0
        self.blocks_total = 0
        self.tokens_per_block = 0

    def add(self, iterations: list[Any]) -> None:
        for iteration in iterations:
            self.steps += 1
            batching, cache = iteration.inflight_batching_stats, iteration.kv_cache_stats
            if batching is not None and batching.num_gen_requests:
                self.steps_by_batch[batching.num_gen_requests] += 1
            if cache is not None:
                self.blocks_free, self.blocks_total = cache.free_num_blocks, cache.max_num_blocks
                self.tokens_per_block = cache.tokens_per_block
