"""The models that InternVL's language models become."""

from tensorrt_llm.models.modeling_utils import PretrainedModel


class LLaMAForCausalLM(PretrainedModel):
    architecture = "LlamaForCausalLM"


class QWenForCausalLM(PretrainedModel):
    architecture = "Qwen2ForCausalLM"
