"""The executor of TensorRT-LLM as serving uses it, as its sources near 1.2.1 have it. The form is `recorded_api`'s."""

_EXECUTOR = "tensorrt_llm.bindings.executor"

CALLED: dict[str, str] = {
    f"{_EXECUTOR}.{name}": parameters
    for name, parameters in {
        "Executor": "model_path model_type executor_config",
        "Executor.enqueue_request": "request",
        "Executor.await_responses": "timeout=",
        "Executor.cancel_request": "id=",
        "Executor.get_latest_iteration_stats": "",
        "Executor.can_enqueue_requests": "",
        "Executor.shutdown": "",
        "ExecutorConfig": "max_beam_width= scheduler_config= kv_cache_config= enable_chunked_context= "
        "iter_stats_max_iterations= batching_type= parallel_config= max_queue_size= guided_decoding_config=",
        "SchedulerConfig": "capacity_scheduler_policy=",
        "KvCacheConfig": "enable_block_reuse= free_gpu_memory_fraction= enable_partial_reuse=",
        "ParallelConfig": "communication_type= communication_mode=",
        "GuidedDecodingConfig": "backend encoded_vocab= tokenizer_str= stop_token_ids=",
        "Request": "input_token_ids max_tokens streaming= sampling_config= output_config= end_id= embedding_bias= "
        "prompt_tuning_config= client_id= guided_decoding_params= cache_salt_id=",
        "PromptTuningConfig": "embedding_table input_token_extra_ids=",
        "SamplingConfig": "beam_width= top_k= top_p= seed= temperature= min_tokens= repetition_penalty= "
        "presence_penalty= frequency_penalty= min_p=",
        "OutputConfig": "exclude_input_from_output= return_perf_metrics=",
        "GuidedDecodingParams": "guide_type guide=",
        "Response.has_error": "",
    }.items()
}
"""What is called."""

READ: tuple[str, ...] = tuple(
    f"{_EXECUTOR}.{name}"
    for name in (
        "ModelType.DECODER_ONLY",
        "BatchingType.INFLIGHT",
        "CapacitySchedulerPolicy.GUARANTEED_NO_EVICT",
        "CommunicationType.MPI",
        "CommunicationMode.LEADER",
        "GuidedDecodingConfig.GuidedDecodingBackend.XGRAMMAR",
        "GuidedDecodingParams.GuideType.JSON_SCHEMA",
        *(f"FinishReason.{name}" for name in "NOT_FINISHED END_ID STOP_WORDS LENGTH TIMED_OUT CANCELLED".split()),
        *(f"Response.{name}" for name in "error_msg result".split()),
    )
)
"""What is read: members of closed sets, properties."""
