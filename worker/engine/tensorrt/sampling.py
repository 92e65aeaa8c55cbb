"""How a generation's sampling is asked of the executor, parameter by parameter, and what of it cannot be had.

The order in which the executor applies them is its own; what penalties count is too.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from worker.engine.generation import Generation
from worker.engine.protocol import Rejected

TOP_K_MAX = 1024
"""What its sampling kernels keep of a row."""

# What is less leaves the likeliest token alone, in any vocabulary and whatever the logits' last bits. The executor's 32
# bits would make some of it 0, which is no greedy choice there, and for top_p an error that ends all that run.
_GREEDY_BELOW = 1e-6

# Enough that a softmax in float32 gives it nothing, and far from what overflows in 16 bits.
_NEVER = -10_000.0


@dataclass(frozen=True, slots=True)
class Asked:
    """`parameters` are SamplingConfig's. `bias` is added to the logits of these tokens."""

    parameters: dict[str, Any]
    bias: dict[int, float]


def asked_of(generation: Generation, drawn: int) -> Asked:
    """`drawn` tokens of the answer are in the prompt already. Raises Rejected naming what cannot be had."""
    _check(generation)
    sampling = generation.sampling
    parameters: dict[str, Any] = {"beam_width": 1}
    if min(sampling.temperature, sampling.top_p) < _GREEDY_BELOW or sampling.top_k == 1:
        parameters["top_k"] = 1
    else:
        parameters |= {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "seed": _seed(sampling.seed, drawn),
        }
        if sampling.min_p:
            parameters["min_p"] = sampling.min_p
    for name, off in (("repetition_penalty", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)):
        value = getattr(sampling, name)
        if value != off:
            parameters[name] = value
    bias = dict(sampling.logit_bias)
    if (least := generation.min_tokens - drawn) > 0:
        parameters["min_tokens"] = least
        # The executor holds back the one end that it knows; the others do not end this answer at all.
        bias |= dict.fromkeys(generation.stop_ids[1:], _NEVER)
    return Asked(parameters, bias)


def _check(generation: Generation) -> None:
    sampling = generation.sampling
    if sampling.logprobs is not None:
        raise Rejected(
            "invalid_sampling",
            f"logprobs = {sampling.logprobs} cannot be had from TensorRT-LLM: it tells none of the other tokens, and a "
            "cancelled stream with logprobs may end the whole engine",
        )
    if sampling.top_k > TOP_K_MAX:
        raise Rejected("invalid_sampling", f"top_k is {sampling.top_k}; TensorRT-LLM takes at most {TOP_K_MAX}")


def _seed(seed: int, drawn: int) -> int:
    """The executor counts its random numbers from where a request begins: an answer that goes on must not draw those
    of its beginning again."""
    if not drawn:
        return seed % (1 << 64)
    return int.from_bytes(sha256(f"{seed}:{drawn}".encode()).digest()[:8], "big")
