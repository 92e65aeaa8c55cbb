"""How an executor is set up."""

from collections.abc import Callable
from typing import Any

from tensorrt_llm.bindings.executor.binding import Int32, Uint64, value
from tensorrt_llm.bindings.executor.enums import (
    BatchingType,
    CapacitySchedulerPolicy,
    CommunicationMode,
    CommunicationType,
    ContextChunkingPolicy,
    GuidedDecodingBackend,
)


@value
class DynamicBatchConfig:
    def __init__(
        self,
        enable_batch_size_tuning: bool,
        enable_max_num_tokens_tuning: bool,
        dynamic_batch_moving_average_window: Int32,
    ) -> None: ...


@value
class SchedulerConfig:
    def __init__(
        self,
        capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT,
        context_chunking_policy: ContextChunkingPolicy | None = None,
        dynamic_batch_config: DynamicBatchConfig | None = None,
    ) -> None: ...


@value
class KvCacheConfig:
    def __init__(
        self,
        enable_block_reuse: bool = True,
        max_tokens: Int32 | None = None,
        max_attention_window: list[Int32] | None = None,
        sink_token_length: Int32 | None = None,
        free_gpu_memory_fraction: float | None = None,
        host_cache_size: Uint64 | None = None,
        onboard_blocks: bool = True,
        cross_kv_cache_fraction: float | None = None,
        secondary_offload_min_priority: Int32 | None = None,
        event_buffer_max_size: Uint64 = 0,
        *,
        enable_partial_reuse: bool = True,
        copy_on_partial_reuse: bool = True,
        use_uvm: bool = False,
        attention_dp_events_gather_period_ms: Uint64 = 5,
        runtime_defaults: None = None,
        max_gpu_total_bytes: Uint64 = 0,
    ) -> None: ...


@value
class OrchestratorConfig:
    def __init__(
        self,
        is_orchestrator: bool = True,
        worker_executable_path: str = "",
        orch_leader_comm: Any = None,
        spawn_processes: bool = True,
    ) -> None: ...


@value
class ParallelConfig:
    def __init__(
        self,
        communication_type: CommunicationType = CommunicationType.MPI,
        communication_mode: CommunicationMode = CommunicationMode.LEADER,
        device_ids: list[Int32] | None = None,
        participant_ids: list[Int32] | None = None,
        orchestrator_config: OrchestratorConfig | None = None,
        num_nodes: Int32 | None = None,
    ) -> None: ...


@value
class PeftCacheConfig:
    def __init__(self) -> None: ...


@value
class LogitsPostProcessorConfig:
    def __init__(
        self,
        processor_map: dict[str, Callable] | None = None,
        processor_batched: Callable | None = None,
        replicate: bool = True,
    ) -> None: ...


@value
class LookaheadDecodingConfig:
    def __init__(self, max_window_size: Int32, max_ngram_size: Int32, max_verification_set_size: Int32) -> None: ...


@value
class DecodingConfig:
    def __init__(
        self,
        decoding_mode: Any = None,
        lookahead_decoding_config: LookaheadDecodingConfig | None = None,
        medusa_choices: list[list[Int32]] | None = None,
        eagle_config: Any = None,
    ) -> None: ...


@value
class GuidedDecodingConfig:
    def __init__(
        self,
        backend: GuidedDecodingBackend,
        encoded_vocab: list[str] | None = None,
        tokenizer_str: str | None = None,
        stop_token_ids: list[Int32] | None = None,
    ) -> None: ...


@value
class ExtendedRuntimePerfKnobConfig:
    _more = ("cuda_graph_mode", "cuda_graph_cache_size")

    def __init__(self, multi_block_mode: bool = True, enable_context_fmha_fp32_acc: bool = False) -> None:
        self.cuda_graph_mode = False
        self.cuda_graph_cache_size = 0


@value
class ExecutorConfig:
    def __init__(
        self,
        max_beam_width: Int32 = 1,
        scheduler_config: SchedulerConfig = SchedulerConfig(),  # noqa: B008
        kv_cache_config: KvCacheConfig = KvCacheConfig(),  # noqa: B008
        enable_chunked_context: bool = False,
        normalize_log_probs: bool = True,
        iter_stats_max_iterations: Int32 = 1000,
        request_stats_max_iterations: Int32 = 0,
        batching_type: BatchingType = BatchingType.INFLIGHT,
        max_batch_size: Int32 | None = None,
        max_num_tokens: Int32 | None = None,
        parallel_config: ParallelConfig | None = None,
        peft_cache_config: PeftCacheConfig | None = PeftCacheConfig(),  # noqa: B008
        logits_post_processor_config: LogitsPostProcessorConfig | None = None,
        decoding_config: DecodingConfig | None = None,
        use_gpu_direct_storage: bool = False,
        gpu_weights_percent: float = 1.0,
        max_queue_size: Int32 | None = None,
        extended_runtime_perf_knob_config: ExtendedRuntimePerfKnobConfig = ExtendedRuntimePerfKnobConfig(),  # noqa: B008
        debug_config: Any = None,
        recv_poll_period_ms: Int32 = 0,
        max_seq_idle_microseconds: Uint64 = 180_000_000,
        spec_dec_config: Any = None,
        guided_decoding_config: GuidedDecodingConfig | None = None,
        additional_model_outputs: list[Any] | None = None,
        cache_transceiver_config: Any = None,
        gather_generation_logits: bool = False,
        mm_embedding_offloading: bool = False,
        enable_trt_overlap: bool = False,
        fail_fast_on_attention_window_too_large: bool = False,
    ) -> None:
        if batching_type is BatchingType.STATIC:
            raise RuntimeError("Static batching type is deprecated. Please use in-flight batching instead.")
