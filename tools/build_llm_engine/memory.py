"""How much memory the engine takes, by arithmetic on the plan; the formula is in docs/tensorrt-llm.md. Loads nothing.

All numbers are bytes, and of one GPU where nothing else is said.
"""

from dataclasses import dataclass

from tools.build_llm_engine.plan import Plan, Quantization

_DTYPE_BYTES = {"bfloat16": 2, "float16": 2}
_LOGIT_BYTES = 4
# An FP8 matrix has one scale for itself and one for what it is multiplied with.
_FP8_SCALES = 8


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """`table` is the executor's buffer for the prompt tables of a whole batch; `work` what one step computes with, an
    upper estimate. `host` is the computer's memory while it converts; `disk` all ranks, whole model and converted
    weights with them."""

    weights: int
    table: int
    work: int
    cache_per_token: int
    max_seq_len: int
    max_batch_size: int
    host: int
    disk: int

    @property
    def fixed(self) -> int:
        return self.weights + self.table + self.work

    @property
    def least(self) -> int:
        """With a cache for one sequence of the greatest length."""
        return self.fixed + self.cache_per_token * self.max_seq_len

    @property
    def full(self) -> int:
        """With a cache for a whole batch of sequences of the greatest length."""
        return self.fixed + self.cache_per_token * self.max_seq_len * self.max_batch_size

    def cache_tokens(self, gpu: int) -> int:
        """How many tokens the cache holds on a GPU of so many bytes, a tenth of what is left kept free; 0 where the
        engine does not fit."""
        tokens = int(0.9 * (gpu - self.fixed)) // self.cache_per_token
        return tokens if tokens >= self.max_seq_len else 0


def memory_of(plan: Plan) -> EngineMemory:
    d, ranks = plan.decoder, plan.order.tensor_parallel
    size = _DTYPE_BYTES[plan.order.dtype]
    weights = _rank_weights(plan, size)
    whole = _whole_weights(plan, size)
    steps = plan.max_num_tokens * (6 * d.hidden + 3 * d.mlp // ranks) * size
    return EngineMemory(
        weights=weights,
        table=plan.max_prompt_embedding_table_size * d.hidden * size,
        work=steps + plan.order.max_batch_size * d.vocab_size * _LOGIT_BYTES,
        cache_per_token=d.layers * 2 * _kv_heads(plan) * d.head_dim * size,
        max_seq_len=plan.max_seq_len,
        max_batch_size=plan.order.max_batch_size,
        host=whole + weights,
        disk=whole + 2 * ranks * weights,
    )


def _kv_heads(plan: Plan) -> int:
    """Of one GPU: where there are more GPUs than heads, each has one."""
    return max(plan.decoder.kv_heads // plan.order.tensor_parallel, 1)


def _rank_weights(plan: Plan, size: int) -> int:
    """Layers are split over the ranks, as is the head; each rank has the whole embedding table and all norms."""
    d, ranks = plan.decoder, plan.order.tensor_parallel
    rows = -(-d.vocab_size // ranks)
    layer = sum(_matrix(plan.order.quantization, *shape, size) for shape in _matrices(plan, ranks))
    layer += (2 * d.hidden + _biases(plan, ranks)) * size
    return d.layers * layer + (d.hidden + (d.vocab_size + rows) * d.hidden) * size


def _whole_weights(plan: Plan, size: int) -> int:
    """The exported model, which is not quantized."""
    d = plan.decoder
    layer = sum(rows * columns for rows, columns in _matrices(plan, 1)) + 2 * d.hidden + _biases(plan, 1)
    tables = 1 if d.tied else 2
    return (d.layers * layer + d.hidden + tables * d.vocab_size * d.hidden) * size


def _matrices(plan: Plan, ranks: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of one rank's part of a layer: query, key and value together, out, gate, up, down."""
    d = plan.decoder
    query, kv = d.heads * d.head_dim // ranks, max(d.kv_heads // ranks, 1) * d.head_dim
    mlp = d.mlp // ranks
    return ((query + 2 * kv, d.hidden), (d.hidden, query), (mlp, d.hidden), (mlp, d.hidden), (d.hidden, mlp))


def _biases(plan: Plan, ranks: int) -> int:
    d = plan.decoder
    qkv, out, gate, up, down = (rows for rows, _ in _matrices(plan, ranks))
    return d.qkv_bias * qkv + d.out_bias * out + d.mlp_bias * (gate + up + down)


def _matrix(quantization: Quantization, rows: int, columns: int, size: int) -> int:
    """With a scale for each row where the weights are integers."""
    match quantization:
        case Quantization.INT8:
            return rows * columns + rows * size
        case Quantization.INT4:
            return rows * columns // 2 + rows * size
        case Quantization.FP8:
            return rows * columns + _FP8_SCALES
    return rows * columns * size
