"""The executor of TensorRT-LLM as it is set up and asked here. Knows its API, and neither queues nor threads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.engine.generation import Finish, Generation
from worker.engine.protocol import Rejected
from worker.engine.tensorrt.guidance import Guidance
from worker.engine.tensorrt.sampling import asked_of


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """`cache_share`: of the GPU memory that is free once the weights are loaded, for keys and values."""

    folder: Path
    slots: int
    cache_share: float
    prefix_reuse: bool
    ranks: int


def start_executor(api: Any, options: ExecutorOptions, guidance: Guidance) -> Any:
    """Loads the engine. It keeps the interpreter until it is done, minutes for a large one. Batch and step sizes stay
    those of the engine, from which it counts each request's part of the prompt table; prompts are not cut into chunks,
    and no sequence is ever thrown out for another."""
    parallel = None
    if options.ranks > 1:
        parallel = api.ParallelConfig(
            communication_type=api.CommunicationType.MPI, communication_mode=api.CommunicationMode.LEADER
        )
    config = api.ExecutorConfig(
        max_beam_width=1,
        scheduler_config=api.SchedulerConfig(capacity_scheduler_policy=api.CapacitySchedulerPolicy.GUARANTEED_NO_EVICT),
        kv_cache_config=api.KvCacheConfig(
            enable_block_reuse=options.prefix_reuse,
            free_gpu_memory_fraction=options.cache_share,
            # A block that is taken over in part counts as reused like a whole one: nobody could tell how many tokens
            # of a prompt were cached.
            enable_partial_reuse=False,
        ),
        enable_chunked_context=False,
        iter_stats_max_iterations=1000,
        batching_type=api.BatchingType.INFLIGHT,
        parallel_config=parallel,
        # The queue is ours: in this one a cancel comes late.
        max_queue_size=options.slots,
        guided_decoding_config=guidance.config(api),
    )
    return api.Executor(str(options.folder), api.ModelType.DECODER_ONLY, config)


@dataclass(frozen=True, slots=True)
class Requests:
    """Makes the executor's requests."""

    api: Any
    vocab_size: int
    guidance: Guidance

    def check(self, generation: Generation) -> None:
        """Raises Rejected for what the executor cannot do, or would refuse once it is too late for this one alone."""
        asked = asked_of(generation, 0)
        try:
            self.api.SamplingConfig(**asked.parameters)
        except (RuntimeError, TypeError, ValueError) as exc:
            raise Rejected("invalid_sampling", f"TensorRT-LLM does not take {asked.parameters}: {exc}") from exc
        self.guidance.params(self.api, generation)

    def request(
        self, generation: Generation, ids: list[int], number: int, max_tokens: int, drawn: int, table: Any = None
    ) -> Any:
        """`drawn` of `ids` are tokens of the answer. `table` is what `prompt_table` has made. Of several stop ids the
        executor knows the first; whoever reads its tokens ends the answer at the others."""
        api, asked = self.api, asked_of(generation, drawn)
        return api.Request(
            ids,
            max_tokens,
            streaming=True,
            sampling_config=api.SamplingConfig(**asked.parameters),
            output_config=api.OutputConfig(exclude_input_from_output=True, return_perf_metrics=True),
            end_id=generation.stop_ids[0] if generation.stop_ids else None,
            embedding_bias=self._bias(asked.bias),
            prompt_tuning_config=table,
            client_id=number,
            guided_decoding_params=self.guidance.params(api, generation),
            cache_salt_id=generation.salt or None,
        )

    def table(self, embeddings: torch.Tensor, extra_ids: list[int]) -> Any:
        """A PromptTuningConfig; `extra_ids` are as many as the prompt's ids."""
        return self.api.PromptTuningConfig(embeddings, input_token_extra_ids=extra_ids)

    def _bias(self, values: dict[int, float]) -> torch.Tensor | None:
        if not values:
            return None
        bias = torch.zeros(self.vocab_size)
        bias[list(values)] = torch.tensor(list(values.values()))
        return bias


def finishes(api: Any) -> dict[Any, Finish]:
    """What the executor's reasons are here; those that are absent are errors."""
    reasons = api.FinishReason
    return {
        reasons.END_ID: Finish.STOP,
        reasons.STOP_WORDS: Finish.STOP,
        reasons.LENGTH: Finish.LENGTH,
        reasons.CANCELLED: Finish.CANCELLED,
    }
