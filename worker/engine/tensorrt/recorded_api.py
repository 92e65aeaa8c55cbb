"""The API of TensorRT-LLM that is used here, as its sources near 1.2.1 have it: what can be called, and the names of
what it takes, `=` behind those with a default. Facts alone; `signatures` compares them with what is installed."""

TENSORRT_LLM = "1.2.1"

_MODEL = {
    "from_hugging_face": "hf_model_or_dir dtype= mapping= quant_config=",
    "from_checkpoint": "ckpt_dir rank= config= preprocess_weights_hook=",
    "save_checkpoint": "output_dir save_config=",
    "quantize": "hf_model_dir output_dir dtype= mapping= quant_config= calib_dataset=",
}
_BUILD_CONFIG = (
    "max_input_len= max_seq_len= opt_batch_size= max_batch_size= max_beam_width= max_num_tokens= opt_num_tokens= "
    "max_prompt_embedding_table_size= kv_cache_type= gather_context_logits= gather_generation_logits= strongly_typed= "
    "force_num_profiles= profiling_verbosity= enable_debug_output= max_draft_len= speculative_decoding_mode= "
    "use_refit= input_timing_cache= output_timing_cache= lora_config= weight_sparsity= weight_streaming= "
    "plugin_config= use_strip_plan= max_encoder_input_len= dry_run= visualize_network= monitor_memory= use_mrope="
)

BUILDING: dict[str, str] = {
    "tensorrt_llm.builder.BuildConfig": _BUILD_CONFIG,
    "tensorrt_llm.builder.build": "model build_config",
    "tensorrt_llm.builder.Engine.save": "engine_dir",
    "tensorrt_llm.mapping.Mapping": "world_size= rank= tp_size= pp_size=",
    "tensorrt_llm.models.modeling_utils.QuantConfig": "quant_algo= kv_cache_quant_algo=",
    **{f"tensorrt_llm.models.LLaMAForCausalLM.{name}": takes for name, takes in _MODEL.items()},
    **{f"tensorrt_llm.models.QWenForCausalLM.{name}": takes for name, takes in _MODEL.items()},
}
"""What converting and building call."""
