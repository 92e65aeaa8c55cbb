"""What is asked of an executor."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar

import torch

from tensorrt_llm.bindings.executor.binding import Int32, Uint64, value
from tensorrt_llm.bindings.executor.config import LookaheadDecodingConfig
from tensorrt_llm.bindings.executor.enums import GuideType, KvCacheTransferMode, RequestType


def _check(right: bool, what: str) -> None:
    if not right:
        raise RuntimeError(f"[TensorRT-LLM][ERROR] Assertion failed: {what}")


@value
class SamplingConfig:
    def __init__(
        self,
        beam_width: Int32 = 1,
        *,
        top_k: Int32 | None = None,
        top_p: float | None = None,
        top_p_min: float | None = None,
        top_p_reset_ids: Int32 | None = None,
        top_p_decay: float | None = None,
        seed: Uint64 | None = None,
        temperature: float | None = None,
        min_tokens: Int32 | None = None,
        beam_search_diversity_rate: float | None = None,
        repetition_penalty: float | None = None,
        presence_penalty: float | None = None,
        frequency_penalty: float | None = None,
        length_penalty: float | None = None,
        early_stopping: Int32 | None = None,
        no_repeat_ngram_size: Int32 | None = None,
        num_return_sequences: Int32 | None = None,
        min_p: float | None = None,
        beam_width_array: list[Int32] | None = None,
    ) -> None:
        _check(beam_width > 0, "beamWidth > 0")
        _check(top_k is None or top_k >= 0, "topK.value() >= 0")
        _check(top_p is None or 0 < top_p <= 1, "topP.value() > 0.f && topP.value() <= 1.f")
        _check(temperature is None or temperature >= 0, "temperature.value() >= 0.f")
        _check(min_tokens is None or min_tokens >= 0, "minTokens.value() >= 0")
        _check(repetition_penalty is None or repetition_penalty > 0, "repetitionpenalty.value() > 0.f")
        _check(min_p is None or 0 <= min_p <= 1, "minP.value() >= 0.f && minP.value() <= 1.0f")


@value
class OutputConfig:
    def __init__(
        self,
        return_log_probs: bool = False,
        return_context_logits: bool = False,
        return_generation_logits: bool = False,
        exclude_input_from_output: bool = False,
        return_encoder_output: bool = False,
        return_perf_metrics: bool = False,
        additional_model_outputs: list[Any] | None = None,
    ) -> None: ...


@value
class PromptTuningConfig:
    """The table is taken by reference."""

    def __init__(self, embedding_table: torch.Tensor, input_token_extra_ids: list[Uint64] | None = None) -> None:
        if embedding_table.dim() != 2:
            raise RuntimeError(
                f"Expected prompt embedding table to have shape [*, hiddenSize], got {embedding_table.shape}"
            )


@value
class MultimodalInput:
    def __init__(
        self,
        multimodal_hashes: list[list[Int32]],
        multimodal_positions: list[Int32],
        multimodal_lengths: list[Int32],
    ) -> None: ...


@value
class LoraConfig:
    def __init__(
        self, task_id: Uint64, weights: torch.Tensor | None = None, config: torch.Tensor | None = None
    ) -> None: ...


@value
class GuidedDecodingParams:
    def __init__(self, guide_type: GuideType, guide: str | None = None) -> None: ...


@value
class TokenRangeRetentionConfig:
    def __init__(
        self, token_start: Int32, token_end: Int32 | None, priority: Int32, duration_ms: timedelta | None = None
    ) -> None: ...


@value
class KvCacheRetentionConfig:
    TokenRangeRetentionConfig: ClassVar = TokenRangeRetentionConfig

    def __init__(
        self,
        token_range_retention_configs: list[TokenRangeRetentionConfig],
        decode_retention_priority: Int32 = 35,
        decode_duration_ms: timedelta | None = None,
        transfer_mode: KvCacheTransferMode = KvCacheTransferMode.DRAM,
        directory: str | None = None,
    ) -> None: ...


@value
class Request:
    kDefaultPriority: ClassVar = 0.5

    def __init__(
        self,
        input_token_ids: list[Int32],
        max_tokens: Int32,
        *,
        streaming: bool = False,
        sampling_config: SamplingConfig = SamplingConfig(),  # noqa: B008
        output_config: OutputConfig = OutputConfig(),  # noqa: B008
        end_id: Int32 | None = None,
        pad_id: Int32 | None = None,
        position_ids: list[Int32] | None = None,
        bad_words: list[list[Int32]] | None = None,
        stop_words: list[list[Int32]] | None = None,
        embedding_bias: torch.Tensor | None = None,
        external_draft_tokens_config: Any = None,
        prompt_tuning_config: PromptTuningConfig | None = None,
        multimodal_input: MultimodalInput | None = None,
        multimodal_embedding: torch.Tensor | None = None,
        mrope_config: Any = None,
        lora_config: LoraConfig | None = None,
        lookahead_config: LookaheadDecodingConfig | None = None,
        kv_cache_retention_config: KvCacheRetentionConfig | None = None,
        logits_post_processor_name: str | None = None,
        logits_post_processor: Callable | None = None,
        encoder_input_token_ids: list[Int32] | None = None,
        client_id: Uint64 | None = None,
        return_all_generated_tokens: bool = False,
        priority: float = 0.5,
        type: RequestType = RequestType.REQUEST_TYPE_CONTEXT_AND_GENERATION,
        context_phase_params: Any = None,
        encoder_input_features: torch.Tensor | None = None,
        encoder_output_length: Int32 | None = None,
        cross_attention_mask: torch.Tensor | None = None,
        num_return_sequences: Int32 = 1,
        eagle_config: Any = None,
        skip_cross_attn_blocks: torch.Tensor | None = None,
        guided_decoding_params: GuidedDecodingParams | None = None,
        language_adapter_uid: Int32 | None = None,
        allotted_time_ms: timedelta | None = None,
        cache_salt_id: Uint64 | None = None,
    ) -> None:
        _check(bool(input_token_ids), "!mInputTokenIds.empty()")
        _check(max_tokens > 0, "mMaxNewTokens > 0")
