"""transformers' own two ways to run the bench's model: `generate` one request at a time, and continuous batching."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.generation.configuration_utils import ContinuousBatchingConfig

_PREFIX = "language_model."
# The best of those tried for short prompts on a CPU: larger pages and budgets make its packed attention dearer.
_PAGE_SIZE = 32
_BATCH_TOKENS = 512


class Peers:
    """The language model alone: both ways take token ids only."""

    def __init__(self, native_folder: Path, new_tokens: int) -> None:
        config = Qwen2Config(**json.loads((native_folder / "config.json").read_text())["text_config"])
        config._attn_implementation = "sdpa"
        tensors = load_file(native_folder / "model.safetensors")
        self._model = Qwen2ForCausalLM(config).eval()
        self._model.load_state_dict({k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)})
        self._generation = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
        self._new_tokens = new_tokens

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]]) -> int:
        """Answers one prompt after the other; returns the number of new tokens."""
        made = 0
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out = self._model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=self._generation)
            made += out.shape[1] - len(prompt)
        return made

    def continuous(self, prompts: list[list[int]]) -> Callable[[], int]:
        """A run of all prompts at once, in a cache that holds them all. Its manager is made anew each time: left
        alive, its thread would spin while the others are measured."""
        pages = sum(-(-(len(p) + self._new_tokens) // _PAGE_SIZE) for p in prompts) + 1
        batching = ContinuousBatchingConfig(
            page_size=_PAGE_SIZE,
            num_blocks=pages,
            max_batch_tokens=_BATCH_TOKENS,
            max_requests_per_batch=len(prompts),
        )

        def run() -> int:
            results = self._model.generate_batch(
                prompts,
                generation_config=self._generation,
                continuous_batching_config=batching,
                warmup=False,
                progress_bar=False,
            )
            return sum(len(result.generated_tokens) for result in results.values())

        return run
