"""What is refused when a request becomes active: for that request alone."""

from tensorrt_llm.bindings.executor.config import ExecutorConfig
from tensorrt_llm.bindings.executor.enums import CapacitySchedulerPolicy, RequestType
from tensorrt_llm.bindings.executor.request import Request

# Given, they would change the answer; nothing that drives InternVL needs them.
_ABSENT = (
    "position_ids bad_words external_draft_tokens_config multimodal_embedding mrope_config lora_config "
    "logits_post_processor_name logits_post_processor encoder_input_token_ids context_phase_params "
    "encoder_input_features encoder_output_length cross_attention_mask eagle_config skip_cross_attn_blocks "
    "language_adapter_uid"
).split()


def fault_of(request: Request, config: ExecutorConfig, longest: int, vocab_size: int) -> str:
    """Empty when there is none. `longest` is of a prompt."""
    length = len(request.input_token_ids)
    if length > longest:
        return f"Prompt length ({length}) exceeds maximum input length ({longest})."
    if request.end_id is not None and not -1 <= request.end_id < vocab_size:
        return f"EndId ({request.end_id}) is not within vocabulary size {vocab_size}."
    if request.sampling_config.beam_width > config.max_beam_width:
        return f"Beam width {request.sampling_config.beam_width} exceeds {config.max_beam_width}"
    tuning = request.prompt_tuning_config
    if tuning is not None and config.kv_cache_config.enable_block_reuse:
        if tuning.input_token_extra_ids is None:
            return "Input token extra ids must be provided when enabling kv cache reuse with prompt table"
        if len(tuning.input_token_extra_ids) != length:
            extra = len(tuning.input_token_extra_ids)
            return f"inputTokenExtraIds vector size ({extra}) must be the same as input token vector size ({length})."
    bias = request.embedding_bias
    if bias is not None and (bias.numel() != vocab_size or not bias.is_floating_point()):
        return f"embedding_bias {list(bias.shape)} of {bias.dtype} for a vocabulary of {vocab_size}"
    return _policy_fault(request, config, longest) or _absent_fault(request)


def _policy_fault(request: Request, config: ExecutorConfig, longest: int) -> str:
    policy = config.scheduler_config.capacity_scheduler_policy
    evicts = policy is not CapacitySchedulerPolicy.GUARANTEED_NO_EVICT and not config.enable_chunked_context
    if evicts and request.streaming and len(request.input_token_ids) + request.max_tokens - 1 > longest:
        return "Request sequence length is potentially greater than max input length; it cannot be evicted and stream"
    if request.guided_decoding_params is not None and config.guided_decoding_config is None:
        return "Guided decoding is not enabled, but the request has guided decoding params"
    if request.output_config.return_generation_logits and not config.gather_generation_logits:
        return "To return generation logits, gather_generation_logits must be enabled in ExecutorConfig"
    return ""


def _absent_fault(request: Request) -> str:
    given = [name for name in _ABSENT if getattr(request, name) is not None]
    if request.type is not RequestType.REQUEST_TYPE_CONTEXT_AND_GENERATION:
        given.append("type")
    return f"not to be had from this stand-in: {', '.join(given)}" if given else ""
