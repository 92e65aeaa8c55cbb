"""An ONNX graph that grows node by node, every float tensor in one dtype until it is cast. Knows no model.

Weights go to one file beside the model as they come, so that the graph stays small (ONNX: external data).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

# What opset 20 has: Gelu, LayerNormalization, Split by count. TensorRT 10 and TensorRT-RTX 1.7 parse it.
OPSET = 20
_IR_VERSION = 9
_ALIGNMENT = 4096
ONNX_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float16: TensorProto.FLOAT16,
    torch.uint8: TensorProto.UINT8,
}


class Graph:
    """`folder` gets `name`.onnx and `name`.weights. Use as a context manager: leaving closes the weights' file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.onnx"
        self._weights_path = folder / f"{name}.weights"
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._count = 0

    def __enter__(self) -> "Graph":
        self._weights = self._weights_path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._weights.close()

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """The name of its output; a list of names where there are several."""
        self._count += 1
        names = [f"{op.lower()}_{self._count}" + (f"_{n}" if n else "") for n in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{self._count}", **attributes))
        return names if outputs > 1 else names[0]

    def output(self, x: str, name: str) -> None:
        """`x`, which the last node made, is called `name` from now on."""
        last = self._nodes[-1]
        if list(last.output) != [x]:
            raise ValueError(f"{x} is not what the last node made: {list(last.output)}")
        last.output[0] = name

    def cast(self, x: str, dtype: torch.dtype) -> str:
        name: str = self.node("Cast", x, to=ONNX_TYPES[dtype])
        return name

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        """A tensor in the weights' file, in its own dtype."""
        start = -self._weights.tell() % _ALIGNMENT + self._weights.tell()
        self._weights.seek(start)
        flat = tensor.detach().cpu().contiguous().view(-1)
        self._weights.write(flat.view(torch.uint8).numpy().data)
        proto = onnx.TensorProto(name=name, data_type=ONNX_TYPES[tensor.dtype], dims=tensor.shape)
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._weights_path.name), ("offset", start), ("length", flat.nbytes)):
            proto.external_data.add(key=key, value=str(value))
        self._initializers.append(proto)
        return name

    def constant(self, values: Sequence[float] | float, dtype: torch.dtype) -> str:
        """A few numbers, kept in the graph itself."""
        tensor = torch.tensor(values).to(dtype)
        self._count += 1
        name = f"constant_{self._count}"
        raw = tensor.view(-1).view(torch.uint8).numpy().tobytes()
        self._initializers.append(helper.make_tensor(name, ONNX_TYPES[dtype], tensor.shape, raw, raw=True))
        return name

    def shape(self, *sizes: int) -> str:
        """int64 numbers: a shape, axes, pads."""
        self._count += 1
        name = f"shape_{self._count}"
        self._initializers.append(onnx.numpy_helper.from_array(np.array(sizes, dtype=np.int64), name))
        return name

    def save(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> Path:
        """Raises onnx.checker.ValidationError when the graph is none."""
        graph = helper.make_graph(self._nodes, self._name, inputs, outputs, self._initializers)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="vlmq"
        )
        self._weights.flush()
        onnx.save(model, self.path)
        onnx.checker.check_model(str(self.path), full_check=True)
        return self.path
