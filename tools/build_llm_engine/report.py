"""A plan and its memory as lines of text."""

from tools.build_llm_engine.memory import memory_of
from tools.build_llm_engine.plan import Plan

_GIB = 1 << 30
# Of one GPU, as their makers name them; what an application gets of it is a little less.
_GPUS_GIB = (24, 48, 80, 141)


def report(plan: Plan) -> str:
    order, memory, ranks = plan.order, memory_of(plan), plan.order.tensor_parallel
    sizes = [
        ("weights", f"{order.dtype}, layers {order.quantization}" if order.quantization != "none" else order.dtype),
        ("GPUs", str(ranks)),
        ("max_batch_size", str(order.max_batch_size)),
        ("max_input_len", f"{plan.max_input_len:,} tokens"),
        ("max_seq_len", f"{plan.max_seq_len:,} tokens"),
        ("max_num_tokens", f"{plan.max_num_tokens:,} tokens"),
        (
            "max_prompt_embedding_table_size",
            f"{plan.max_prompt_embedding_table_size:,} rows = {order.max_batch_size} requests × {order.tiles} tiles × "
            f"{plan.tokens_per_tile} tokens",
        ),
    ]
    each = "on each GPU" if ranks > 1 else "on the GPU"
    needs = [
        (f"weights {each}", _size(memory.weights)),
        ("prompt table", _size(memory.table)),
        ("one step, at most", _size(memory.work)),
        ("cache of 1,000 tokens", _size(1000 * memory.cache_per_token)),
        (f"together {each}, cache for one sequence", _size(memory.least)),
        (f"together {each}, cache for a whole batch", _size(memory.full)),
        ("host memory while converting", _size(memory.host)),
        ("disk while building", _size(memory.disk)),
    ]
    fits = [(f"cache on GPUs of {gpu} GiB", _tokens(memory.cache_tokens(gpu * _GIB))) for gpu in _GPUS_GIB]
    width = max(len(name) for name, _ in (*sizes, *needs, *fits))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in (*sizes, *needs, *fits))


def _size(size: int) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB // 10 else f"{size / (1 << 20):.1f} MiB"


def _tokens(tokens: int) -> str:
    return f"{tokens:,} tokens" if tokens else "does not fit"
