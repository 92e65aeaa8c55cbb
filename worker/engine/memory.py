"""How much memory a model takes on its device, by arithmetic on its config. Loads nothing, needs no torch."""

from dataclasses import dataclass
from math import prod

from worker.engine.config import InternVLConfig
from worker.engine.torch.tensor_names import targets

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_EIGHT_BIT = "decoder.layers."
# What the draw keeps of the logits of every slot in float32: themselves, with bans and penalties, sorted.
_LOGIT_COPIES = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is asked to hold: see ModelSettings. On a CPU in fp32, decode keeps its own copies of keys and
    values: `decode_copies`, see `torch.dense_decode`."""

    dtype: str
    eight_bit: bool
    slots: int
    cache_tokens: int
    prefill_chunk: int
    tiles_per_step: int
    embedding_bytes: int
    decode_copies: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `copies` are of the cache at its fullest; `vision` and `language` are the working memory of one step,
    upper estimates; `embeddings` the cache of encoded images."""

    weights: int
    cache_per_token: int
    cache: int
    copies: int
    vision: int
    language: int
    embeddings: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.copies + self.vision + self.language + self.embeddings


def parameter_count(config: InternVLConfig) -> int:
    return sum(prod(target.shape) for target in targets(config).values())


def memory_of(config: InternVLConfig, load: Load) -> Memory:
    size = DTYPE_BYTES[load.dtype]
    v, d = config.vision, config.decoder
    per_token = d.layers * 2 * d.kv_heads * d.head_dim * size
    patches = load.tiles_per_step * ((v.image_size // v.patch_size) ** 2 + 1)
    tokens = max(load.prefill_chunk, load.slots)
    return Memory(
        weights=_weights(config, size, load.eight_bit),
        cache_per_token=per_token,
        cache=per_token * load.cache_tokens,
        copies=2 * per_token * load.cache_tokens if load.decode_copies else 0,
        vision=patches * (6 * v.hidden + 2 * v.mlp) * size,
        language=tokens * (6 * d.hidden + 3 * d.mlp) * size + _LOGIT_COPIES * load.slots * d.vocab_size * 4,
        embeddings=load.embedding_bytes,
    )


def _weights(config: InternVLConfig, size: int, eight_bit: bool) -> int:
    """In 8 bits a matrix has one byte per element and a scale per row; see `torch.quantization`."""
    total = 0
    for target in targets(config).values():
        matrix = len(target.shape) == 2 and target.parameter.startswith(_EIGHT_BIT)
        if eight_bit and matrix:
            total += prod(target.shape) + target.shape[0] * (size + 1)
        else:
            total += prod(target.shape) * size
    return total
