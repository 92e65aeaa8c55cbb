"""InternViT, pixel unshuffle and projector as an ONNX graph: the same computation as `worker.engine.torch.vision`.

Everything is in the engine's dtype but what loses by it: pixels are normalised and norms computed in float32.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from onnx import helper

from tools.build_vision_engine.graph import ONNX_TYPES, Graph
from worker.engine.config import VisionConfig
from worker.engine.torch.vision import MEAN, PROJECTOR_EPS, STD, Vision

INPUT, OUTPUT = "tiles", "visual_tokens"


def write_vision(
    vision: Vision, config: VisionConfig, folder: Path, progress: Callable[[float, str], None], name: str = "vision"
) -> Path:
    """The graph takes uint8 `[n, size, size, 3]` and gives `[n, tokens_per_tile, decoder hidden]` in the dtype of
    `vision`, for any n. Returns the path of the ONNX file."""
    with Graph(folder, name) as graph:
        return _Writer(graph, vision, config, progress).write()


class _Writer:
    def __init__(
        self, graph: Graph, vision: Vision, config: VisionConfig, progress: Callable[[float, str], None]
    ) -> None:
        self._g = graph
        self._c = config
        self._state = {name: tensor.detach() for name, tensor in vision.named_parameters()}
        self._dtype = self._state["patch.weight"].dtype
        self._hidden = self._state["projector2.weight"].shape[0]
        self._grid = config.image_size // config.patch_size
        self._tokens = self._grid**2 + 1
        self._progress = progress

    def write(self) -> Path:
        x = self._embedded()
        for layer in range(self._c.layers_used):
            x = self._layer(x, f"layers.{layer}")
            self._progress((layer + 1) / (self._c.layers_used + 1), f"layer {layer + 1}")
        self._g.output(self._projected(self._unshuffled(x)), OUTPUT)
        size = self._c.image_size
        tiles = helper.make_tensor_value_info(INPUT, ONNX_TYPES[torch.uint8], ["n", size, size, 3])
        shape: list[str | int | None] = ["n", self._c.tokens_per_tile, self._hidden]
        path = self._g.save([tiles], [helper.make_tensor_value_info(OUTPUT, ONNX_TYPES[self._dtype], shape)])
        self._progress(1.0, path.name)
        return path

    def _embedded(self) -> str:
        """Normalised patches through the patch convolution, the class token before them, positions added. Where the
        class token stands the padding is zero, so the token is in the first position's row."""
        g, c, width = self._g, self._c, self._c.hidden
        scale = g.constant([1 / (255 * each) for each in STD], torch.float32)
        shift = g.constant([mean / std for mean, std in zip(MEAN, STD, strict=True)], torch.float32)
        x = g.node("Sub", g.node("Mul", g.cast(INPUT, torch.float32), scale), shift)
        x = g.cast(x, self._dtype)
        x = g.node("Reshape", x, g.shape(-1, self._grid, c.patch_size, self._grid, c.patch_size, 3))
        x = g.node("Transpose", x, perm=[0, 1, 3, 5, 2, 4])
        x = self._linear(g.node("Reshape", x, g.shape(-1, self._grid**2, 3 * c.patch_size**2)), "patch")
        x = g.node("Pad", x, g.shape(0, 1, 0, 0, 0, 0), g.constant(0.0, self._dtype))
        positions = self._state["positions"].clone()
        positions[0] += self._state["class_token"]
        return str(g.node("Add", x, g.weight("positions", positions.view(1, self._tokens, width))))

    def _layer(self, x: str, name: str) -> str:
        g, c = self._g, self._c
        attended = self._attention(self._norm(x, f"{name}.norm1", c.eps, c.rms_norm), name)
        x = g.node("Add", x, g.node("Mul", attended, self._plain(f"{name}.scale1")))
        inner = self._linear(self._norm(x, f"{name}.norm2", c.eps, c.rms_norm), f"{name}.fc1")
        inner = self._linear(g.node("Gelu", inner), f"{name}.fc2")
        return str(g.node("Add", x, g.node("Mul", inner, self._plain(f"{name}.scale2"))))

    def _attention(self, x: str, name: str) -> str:
        g, c, width = self._g, self._c, self._c.hidden
        query, key, value = g.node("Split", self._linear(x, f"{name}.qkv"), outputs=3, axis=-1, num_outputs=3)
        if c.qk_norm:
            query = self._norm(query, f"{name}.query_norm", c.eps, rms=True)
            key = self._norm(key, f"{name}.key_norm", c.eps, rms=True)
        head = width // c.heads
        query = g.node("Mul", query, g.constant(1 / math.sqrt(head), self._dtype))
        heads = g.shape(-1, self._tokens, c.heads, head)
        query, key, value = (
            g.node("Transpose", g.node("Reshape", part, heads), perm=perm)
            for part, perm in ((query, [0, 2, 1, 3]), (key, [0, 2, 3, 1]), (value, [0, 2, 1, 3]))
        )
        weights = g.node("Softmax", g.node("MatMul", query, key), axis=-1)
        x = g.node("Transpose", g.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        return self._linear(g.node("Reshape", x, g.shape(-1, self._tokens, width)), f"{name}.out")

    def _unshuffled(self, x: str) -> str:
        """Without the class token: see `Vision._unshuffle`."""
        g, c = self._g, self._c
        factor = round(1 / c.downsample_ratio)
        small = self._grid // factor
        x = g.node("Slice", x, g.shape(1), g.shape(self._tokens), g.shape(1))
        x = g.node("Reshape", x, g.shape(-1, small, factor, small, factor, c.hidden))
        x = g.node("Transpose", x, perm=[0, 1, 3, 2, 4, 5] if c.ps_version == "v2" else [0, 3, 1, 2, 4, 5])
        return str(g.node("Reshape", x, g.shape(-1, small**2, factor**2 * c.hidden)))

    def _projected(self, x: str) -> str:
        x = self._linear(self._norm(x, "projector_norm", PROJECTOR_EPS, rms=False), "projector1")
        return self._linear(self._g.node("Gelu", x), "projector2")

    def _norm(self, x: str, name: str, eps: float, rms: bool) -> str:
        g = self._g
        weight = g.weight(f"{name}.weight", self._state[f"{name}.weight"].float())
        wide = g.cast(x, torch.float32)
        if not rms:
            bias = g.weight(f"{name}.bias", self._state[f"{name}.bias"].float())
            return g.cast(g.node("LayerNormalization", wide, weight, bias, axis=-1, epsilon=eps), self._dtype)
        square = g.node("ReduceMean", g.node("Mul", wide, wide), g.shape(-1), keepdims=1)
        root = g.node("Sqrt", g.node("Add", square, g.constant(eps, torch.float32)))
        return g.cast(g.node("Mul", g.node("Div", wide, root), weight), self._dtype)

    def _linear(self, x: str, name: str) -> str:
        g = self._g
        x = g.node("MatMul", x, g.weight(f"{name}.weight", self._state[f"{name}.weight"].t()))
        if f"{name}.bias" in self._state:
            x = g.node("Add", x, self._plain(f"{name}.bias"))
        return x

    def _plain(self, name: str) -> str:
        return self._g.weight(name, self._state[name])
