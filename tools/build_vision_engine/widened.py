"""A 16-bit ONNX graph that onnxruntime can run on a CPU: each node computes in float32, and what it gives is rounded
back. That is the arithmetic of the graph as written; onnxruntime has no 16-bit kernels for the CPU."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

_NARROW = (TensorProto.BFLOAT16, TensorProto.FLOAT16)
# These move values and compute nothing, and the CPU has them in every type.
_MOVES = ("Cast", "Reshape", "Transpose")


def widened(path: Path) -> Path:
    """Writes `<name>.wide.onnx` beside `path`, for both use its weights, and returns it; outputs are float32."""
    model = onnx.load(path, load_external_data=False)
    types = _types(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in _MOVES:
            nodes.append(node)
        else:
            nodes.extend(_wide(node, types))
    for output in model.graph.output:
        if types[output.name] in _NARROW:
            nodes.append(helper.make_node("Cast", [output.name], [f"{output.name}.float32"], to=TensorProto.FLOAT))
            output.name += ".float32"
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    wide = path.with_suffix(".wide.onnx")
    onnx.save(model, wide)
    return wide


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor."""
    found = {each.name: each.data_type for each in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    for each in (*inferred.value_info, *inferred.input, *inferred.output):
        found[each.name] = each.type.tensor_type.elem_type
    return found


def _wide(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    before, after = [], []
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    for place, name in enumerate(node.input):
        if types[name] in _NARROW:
            inner.input[place] = f"{node.name}.{place}.wide"
            before.append(helper.make_node("Cast", [name], [inner.input[place]], to=TensorProto.FLOAT))
    for place, name in enumerate(node.output):
        if types[name] in _NARROW:
            inner.output[place] = f"{name}.wide"
            after.append(helper.make_node("Cast", [inner.output[place]], [name], to=types[name]))
    return [*before, inner, *after]
