"""Smaller weights for a graph that computes in floats: matrices in int8, convolutions and embeddings in float16.

Each BLOCK numbers of a matrix share one scale, and a DequantizeLinear in front of the layer multiplies by it; the
others are cast. ONNX Runtime does both once, when it loads a graph. What else was tried, and what it cost, is in
docs/browser.md: convolutions in int8 change every fourth caption of the photo captioner.
"""

from pathlib import Path

import numpy as np

BLOCK = 32  # numbers of a matrix that share a scale, along the axis of its inputs
LEAST = 1024  # numbers in a weight that is worth it
HALVES = ("Conv", "Gather")  # the layers whose weights are kept in float16


def shrink_weights(file: Path, out: Path) -> None:
    """Write the graph of `file`, float32 and of opset 21 or newer, to `out`, with smaller weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    graph = model.graph
    large = {
        each.name: each for each in graph.initializer
        if each.data_type == TensorProto.FLOAT and len(each.dims) > 1 and np.prod(each.dims) >= LEAST
    }  # fmt: skip
    users = {name: node for node in reversed(graph.node) for name in node.input if name in large}  # the first of each
    added = []
    for name, node in users.items():
        weight = numpy_helper.to_array(large[name])
        graph.initializer.remove(large[name])
        if node.op_type in HALVES:
            graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), f"{name}.half"))
            added.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
        else:
            axis = _input_axis(node, weight.ndim)
            numbers, scale = _in_blocks(weight, axis)
            graph.initializer.append(numpy_helper.from_array(numbers, f"{name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
            inputs = [f"{name}.int8", f"{name}.scale"]
            added.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axis, block_size=BLOCK))
    for number, node in enumerate(added):
        graph.node.insert(number, node)
    onnx.save(model, out)


def _input_axis(node: object, dimensions: int) -> int:
    """Return the axis of a layer's weight that its inputs lie along."""
    by_rows = any(each.name == "transB" and each.i for each in node.attribute) or node.op_type == "Transpose"
    return dimensions - 1 if by_rows else dimensions - 2


def _in_blocks(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 numbers of the weight's shape, and the scale of each block along `axis`."""
    starts = range(0, weight.shape[axis], BLOCK)
    largest = np.maximum.reduceat(np.abs(weight), list(starts), axis=axis)
    scale = np.maximum(largest, 1e-12).astype(np.float32) / 127
    each = np.repeat(scale, BLOCK, axis=axis).take(range(weight.shape[axis]), axis=axis)
    return np.rint(weight / each).astype(np.int8), scale
