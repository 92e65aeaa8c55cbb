"""The published models of the InternVL 2.5 and 3 families: their geometry, and each scaled down with every structural
flag and every count of heads kept. Source of the figures: the models' own `config.json`."""

from dataclasses import replace

from tools.tiny_model.geometry import Geometry

_300M = Geometry(
    image_size=448, vision_hidden=1024, vision_layers=24, vision_heads=16, vision_mlp=4096, context_length=32768
)
_6B = replace(
    _300M,
    vision_hidden=3200,
    vision_layers=45,
    vision_heads=25,
    vision_mlp=12800,
    vision_rms_norm=True,
    vision_qk_norm=True,
    vision_qkv_bias=False,
)


def _qwen(
    vision: Geometry, hidden: int, layers: int, heads: int, kv: int, mlp: int, factor: float | None = None
) -> Geometry:
    return replace(
        vision,
        vocab_size=151674,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv,
        head_dim=hidden // heads,
        mlp=mlp,
        rope_factor=factor,
    )


def _internlm2(vision: Geometry, hidden: int, layers: int, heads: int, mlp: int) -> Geometry:
    sized = _qwen(vision, hidden, layers, heads, 8, mlp, factor=2.0)
    return replace(sized, family="internlm2", vocab_size=92553, qkv_bias=False)


_INTERNLM3 = replace(
    _qwen(_300M, 4096, 48, 32, 2, 10240, factor=6.0),
    family="internlm3",
    vocab_size=128142,
    qkv_bias=False,
    rope_theta=50_000_000.0,
)

MODELS = {
    "InternVL2_5-1B": _qwen(_300M, 896, 24, 14, 2, 4864),
    "InternVL2_5-2B": _internlm2(_300M, 2048, 24, 16, 8192),
    "InternVL2_5-4B": _qwen(_300M, 2048, 36, 16, 2, 11008),
    "InternVL2_5-8B": _internlm2(_300M, 4096, 32, 32, 14336),
    "InternVL2_5-26B": _internlm2(_6B, 6144, 48, 48, 16384),
    "InternVL2_5-38B": _qwen(_6B, 5120, 64, 40, 8, 27648),
    "InternVL2_5-78B": _qwen(_6B, 8192, 80, 64, 8, 29568),
    "InternVL3-1B": _qwen(_300M, 896, 24, 14, 2, 4864, factor=2.0),
    "InternVL3-2B": _qwen(_300M, 1536, 28, 12, 2, 8960, factor=2.0),
    "InternVL3-8B": _qwen(_300M, 3584, 28, 28, 4, 18944, factor=2.0),
    "InternVL3-9B": _INTERNLM3,
    "InternVL3-14B": _qwen(_300M, 5120, 48, 40, 8, 13824, factor=2.0),
    "InternVL3-38B": _qwen(_6B, 5120, 64, 40, 8, 27648, factor=2.0),
    "InternVL3-78B": _qwen(_6B, 8192, 80, 64, 8, 29568, factor=2.0),
}


def scaled(model: str) -> Geometry:
    """The model with 2 layers, heads of 8 (InternLM3's of 16: it states the width, which need not be that of hidden
    size and heads), tiles of 56 pixels, and a trained length of 256."""
    whole = MODELS[model]
    return replace(
        whole,
        vocab_size=1024,
        hidden=8 * whole.heads,
        head_dim=16 if whole.family == "internlm3" else 8,
        layers=2,
        mlp=16 * whole.heads,
        context_length=256,
        image_size=56,
        vision_hidden=8 * whole.vision_heads,
        vision_layers=2,
        vision_mlp=16 * whole.vision_heads,
    )
