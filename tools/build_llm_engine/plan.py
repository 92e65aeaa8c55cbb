"""What is to be built, with every size worked out from the checkpoint's config. Needs neither GPU nor TensorRT-LLM."""

from dataclasses import dataclass
from enum import StrEnum

from worker.engine.config import DecoderConfig, InternVLConfig

# Room for text beside the tiles, and for the answer, where the order names no lengths.
_TEXT_TOKENS, _ANSWER_TOKENS = 2048, 2048
_LEAST_STEP_TOKENS = 8192


class Quantization(StrEnum):
    """Of the weights of the layers. INT8 and INT4 compute in the engine's dtype; FP8 computes in 8 bits, with scales
    that are calibrated on texts."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


class PlanError(Exception):
    """No engine can be built as ordered; the message names what contradicts what."""


@dataclass(frozen=True, slots=True)
class Order:
    """`tiles` is the most of one request. What is None is worked out."""

    dtype: str = "bfloat16"
    quantization: Quantization = Quantization.NONE
    calibration: str | None = None
    tensor_parallel: int = 1
    max_batch_size: int = 16
    tiles: int = 13
    max_input_len: int | None = None
    max_seq_len: int | None = None
    max_num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Lengths are in tokens, those of BuildConfig's names as TensorRT-LLM means them."""

    decoder: DecoderConfig
    tokens_per_tile: int
    order: Order
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int

    @property
    def rows_per_request(self) -> int:
        """Of the prompt table: TensorRT-LLM gives each request an equal part of the whole."""
        return self.order.tiles * self.tokens_per_tile

    @property
    def max_prompt_embedding_table_size(self) -> int:
        return self.order.max_batch_size * self.rows_per_request


def make_plan(config: InternVLConfig, order: Order) -> Plan:
    """Raises PlanError."""
    decoder = config.decoder
    visual = order.tiles * config.vision.tokens_per_tile
    longest = order.max_seq_len or min(visual + _TEXT_TOKENS + _ANSWER_TOKENS, decoder.trained_length)
    prompt = order.max_input_len or min(visual + _TEXT_TOKENS, longest - 1)
    plan = Plan(
        decoder=decoder,
        tokens_per_tile=config.vision.tokens_per_tile,
        order=order,
        max_input_len=prompt,
        max_seq_len=longest,
        # Prompts are not cut into chunks, so the longest must fit one step.
        max_num_tokens=order.max_num_tokens or max(_LEAST_STEP_TOKENS, prompt),
    )
    _check_order(order)
    _check_lengths(plan)
    _check_parallel(decoder, order.tensor_parallel)
    return plan


def _check_order(order: Order) -> None:
    for name in ("tensor_parallel", "max_batch_size", "tiles"):
        if getattr(order, name) < 1:
            raise PlanError(f"{name} is {getattr(order, name)}, at least 1 is needed")
    if order.quantization is Quantization.FP8 and order.calibration is None:
        raise PlanError("fp8 needs texts to calibrate its scales on: calibration is a data set's name or folder")
    if order.quantization is not Quantization.FP8 and order.calibration is not None:
        raise PlanError(f"calibration {order.calibration!r} is for fp8 alone; quantization is {order.quantization}")


def _check_lengths(plan: Plan) -> None:
    trained = plan.decoder.trained_length
    if plan.max_seq_len > trained:
        raise PlanError(
            f"max_seq_len {plan.max_seq_len} is beyond the trained length {trained}: whether TensorRT-LLM scales RoPE "
            "as the model does has not been shown, so it is not offered"
        )
    if not plan.rows_per_request <= plan.max_input_len < plan.max_seq_len:
        raise PlanError(
            f"{plan.order.tiles} tiles are {plan.rows_per_request} tokens; they must fit max_input_len "
            f"{plan.max_input_len}, and that must be less than max_seq_len {plan.max_seq_len}"
        )
    if plan.max_num_tokens < plan.max_input_len:
        raise PlanError(
            f"max_num_tokens {plan.max_num_tokens} is less than max_input_len {plan.max_input_len}; prompts are not "
            "cut into chunks"
        )


def _check_parallel(decoder: DecoderConfig, ranks: int) -> None:
    for name, parts in (("attention heads", decoder.heads), ("MLP width", decoder.mlp)):
        if parts % ranks:
            raise PlanError(f"{ranks} GPUs cannot share {parts} {name} equally")
    if decoder.kv_heads % ranks and ranks % decoder.kv_heads:
        raise PlanError(f"{ranks} GPUs can neither share nor repeat {decoder.kv_heads} key-value heads equally")
