"""LightGlue's transformer on several pairs of sets in one pass: their rows one below the other.

What is done to each keypoint by itself needs no other graph for that. Only attention, and the
product that compares both sets, must know where one pair ends and the next begins.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gps_denied_inference.errors import ModelMismatchError

_APART, _BELOW = "stacked.apart", "stacked.below"


def stacked(network: onnx.ModelProto, pairs: int, keypoints: int) -> onnx.ModelProto:
    """Return a network of one head for several pairs.

    It takes points (B, K, 2), descriptors (B K, D) and masks (B, 1, K), and gives similarity
    (B, K, K) and matchability (B K,) of both sets.

    Args:
        network: for one pair, with one attention head.
        pairs: B.
        keypoints: K.

    Raises:
        ModelMismatchError: its attention is not of one head.
    """
    result = onnx.ModelProto()
    result.CopyFrom(network)
    graph = result.graph
    constants = _constants(graph)
    nodes = []
    for node in graph.node:
        if node.op_type in ("Unsqueeze", "Squeeze"):
            if constants.get(node.input[1]) != [0]:
                raise _other(
                    graph.name, f"{node.op_type} '{node.name}' is not along the first axis"
                )
            shape = _APART if node.op_type == "Unsqueeze" else _BELOW
            node = helper.make_node("Reshape", [node.input[0], shape], node.output, node.name)
        elif node.op_type == "Reshape":
            raise _other(graph.name, f"it has Reshape '{node.name}', as several heads have")
        nodes.append(node)
    nodes = _compared_apart(graph.name, nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    for name, each in ((_APART, [pairs, keypoints, -1]), (_BELOW, [pairs * keypoints, -1])):
        graph.initializer.append(numpy_helper.from_array(np.array(each, np.int64), name))
    return result


def _compared_apart(name: str, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Compare each pair's own sets: (K, C) times (C, K) becomes a batch of such products."""
    makers = {output: node for node in nodes for output in node.output}
    product = makers.get("similarity")
    turned = makers.get(product.input[1]) if product is not None else None
    if product is None or turned is None or turned.op_type != "Transpose":
        raise _other(name, "its similarity is no product of one set and the other transposed")
    sides, new = (product.input[0], turned.input[0]), []
    for node in nodes:
        if node is product:
            left, right = (f"stacked.{side}" for side in sides)
            new += [
                helper.make_node("Reshape", [side, _APART], [there], there)
                for side, there in zip(sides, (left, right), strict=True)
            ]
            new.append(
                helper.make_node("Transpose", [right], turned.output, turned.name, perm=[0, 2, 1])
            )
            new.append(
                helper.make_node("MatMul", [left, turned.output[0]], product.output, product.name)
            )
        elif node is not turned:
            new.append(node)
    return new


def _constants(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Return every constant of whole numbers by its name, flat."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return {
        name: numpy_helper.to_array(tensor).ravel().tolist()
        for name, tensor in tensors.items()
        if tensor.data_type in whole
    }


def _other(name: str, what: str) -> ModelMismatchError:
    return ModelMismatchError(f"graph '{name}' takes no several pairs at a time: {what}")
