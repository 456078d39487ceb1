"""LightGlue as a static ONNX graph, built without torch.

It does what the torch module beside it does. Nothing in it has a shape that depends on data, and
padding is masked by the counts; only one that prunes is dynamic within, between inputs and outputs
of static shape.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from gps_denied_inference.models.graph_builder import GraphBuilder
from gps_denied_inference.models.lightglue.options import (
    MASKED,
    UNMATCHABLE,
    match_threshold,
    pruning,
)
from gps_denied_inference.models.lightglue.stacked import stacked
from gps_denied_inference.runtimes.specs import BuildConfig, Model, TensorSpec

_NETWORK_OUTPUTS = ("similarity", "matchability0", "matchability1")


class _Set:
    """One of the two feature sets: its inputs and what masks its padding.

    ``several`` is the leading dimension of every tensor, (B,), or () for one pair at a time.
    """

    def __init__(
        self, g: GraphBuilder, which: int, keypoints: int, dim: int, several: tuple[int, ...]
    ) -> None:
        def given(name: str, shape: tuple[int, ...], dtype: str) -> str:
            return g.input(TensorSpec(f"{name}{which}", (*several, *shape), dtype))

        self.keypoints = given("keypoints", (keypoints, 2), "float32")
        self.descriptors = given("descriptors", (keypoints, dim), "float32")
        self.count = given("count", (1,), "int32")
        self.size = given("size", (2,), "float32")
        self.own = g.constant(np.arange(keypoints), np.int32)
        self.valid = g.op("Less", self.own, self.count)
        self.mask = g.op("Where", self.valid, g.constant(0.0), g.constant(MASKED))


def assemble_lightglue(
    network: onnx.ModelProto, model: Model, config: BuildConfig
) -> onnx.ModelProto:
    """Build a LightGlue matcher's graph for one K, threshold and precision.

    Raises:
        ModelMismatchError: ``network`` is the graph of another architecture.
        InvalidParameterError: an option out of bounds.
    """
    keypoints = config.max_keypoints
    threshold = match_threshold(config)
    layers = sum(value.name.startswith("state0_") for value in network.graph.output)
    prunes = pruning(config, can=layers > 0)
    g = GraphBuilder(model.name)
    several = (config.batch,) if config.batch > 1 else ()
    dim = model.descriptor_dim
    first, second = (_Set(g, i, keypoints, dim, several) for i in (0, 1))
    if prunes:
        _pruned(g, network, layers, (first, second), keypoints, threshold)
        return g.build()
    inputs = []
    for one in (first, second):
        points, descriptors, mask = _centred(g, one, several), one.descriptors, one.mask
        if several:
            descriptors = g.reshape(descriptors, (-1, dim))
            mask = g.reshape(mask, (*several, 1, keypoints))
        inputs += [points, descriptors, mask]
    if several:
        network = stacked(network, config.batch, keypoints)
    maps = g.graft(network, inputs, _NETWORK_OUTPUTS, half=config.precision == "fp16")
    similarity = maps["similarity"]
    column, row = (*several, keypoints, 1), (*several, 1, keypoints)
    along_rows = g.op("Add", similarity, g.reshape(second.mask, row))
    along_columns = g.op("Add", similarity, g.reshape(first.mask, column))
    score = _probability(g, along_rows, along_columns, maps, (column, row))
    kept, partner, best = _mutual_best(g, score, first, second, threshold, several)
    _finish(g, (*several, keypoints), kept, partner, best)
    return g.build()


def _probability(
    g: GraphBuilder,
    along_rows: str,
    along_columns: str,
    maps: dict[str, str],
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((-1, 1), (1, -1)),
) -> str:
    """How probable each pair is, from their similarity (masked for each way) and matchability."""
    rows, columns = g.op("Softmax", along_rows, axis=-1), g.op("Softmax", along_columns, axis=-2)
    score = g.op("Mul", rows, columns)
    for k, shape in enumerate(shapes):
        prospect = g.reshape(g.op("Sigmoid", maps[f"matchability{k}"]), shape)
        score = g.op("Mul", score, prospect)
    return score


def _pruned(
    g: GraphBuilder,
    network: onnx.ModelProto,
    layers: int,
    sets: tuple[_Set, _Set],
    keypoints: int,
    limit: float,
) -> None:
    """Cut the network between its layers and leave keypoints without prospects out there."""
    network = shared_products(network)
    zero, one, nothing = g.constant([0], np.int64), g.constant([1], np.int64), g.constant([0.0])
    feeds: dict[str, str] = {}
    rows = []
    for k, each in enumerate(sets):
        # One row is kept of an empty set, which has no softmax.
        end = g.op("Max", g.cast(each.count, np.int64), one)

        def head(value: str, end: str = end) -> str:
            return g.op("Slice", value, zero, end, zero)

        feeds[f"points{k}"] = head(_centred(g, each, ()))
        feeds[f"descriptors{k}"] = head(each.descriptors)
        feeds[f"mask{k}"] = nothing
        rows.append(head(g.constant(np.arange(keypoints), np.int64)))
    angles = [f"{part}{k}" for k in (0, 1) for part in ("cosine", "sine")]
    feeds |= g.graft_part(network, feeds, angles)
    for layer in range(layers):
        states, prospects = (
            [f"{part}{k}_{layer}" for k in (0, 1)] for part in ("state", "prospect")
        )
        found = g.graft_part(network, feeds, states + prospects)
        for k in (0, 1):
            prospect = found[prospects[k]]
            keep = g.op(
                "Or",
                g.op("Greater", prospect, g.constant(UNMATCHABLE)),
                g.op("GreaterOrEqual", prospect, g.op("ReduceMax", prospect, zero, keepdims=1)),
            )
            for name in (f"cosine{k}", f"sine{k}"):
                feeds[name] = g.op("Compress", feeds[name], keep, axis=0)
            feeds[states[k]] = g.op("Compress", found[states[k]], keep, axis=0)
            rows[k] = g.op("Compress", rows[k], keep, axis=0)
    maps = g.graft_part(network, feeds, _NETWORK_OUTPUTS)
    score = _probability(g, maps["similarity"], maps["similarity"], maps)
    best = g.op("ReduceMax", score, one, keepdims=0)
    choice = g.op("ArgMax", score, axis=1, keepdims=0)
    back = g.op("Gather", g.op("ArgMax", score, axis=0, keepdims=0), choice, axis=0)
    scalar = g.constant(0, np.int64)
    length = g.op("Squeeze", g.op("Shape", rows[0]))
    own = g.op("Range", scalar, length, g.constant(1, np.int64))
    partner = g.cast(g.op("Gather", rows[1], choice, axis=0), np.int32)
    exists = g.op(
        "And",
        g.op("Less", g.cast(rows[0], np.int32), sets[0].count),
        g.op("Less", partner, sets[1].count),
    )
    kept = g.op("And", g.op("Equal", back, own), g.op("Greater", best, g.constant(limit)))
    kept = g.op("And", kept, exists)
    partner = g.op("Where", kept, partner, g.constant(-1, np.int32))
    best = g.op("Where", kept, best, g.constant(0.0))
    none, no_score = g.constant(np.full(keypoints, -1), np.int32), g.constant(np.zeros(keypoints))
    matches = g.op("ScatterElements", none, rows[0], partner, axis=0)
    scores = g.op("ScatterElements", no_score, rows[0], best, axis=0)
    g.output(TensorSpec("matches0", (keypoints,), "int32"), matches)
    g.output(TensorSpec("scores0", (keypoints,), "float32"), scores)


def shared_products(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with b aᵀ taken as the transpose of a bᵀ wherever it has both.

    So it is with the logits of a cross-attention in its two directions. On a CPU the transpose
    costs less than the product. Graphs for a GPU keep both: its compilers know an attention by its
    pattern, and nobody has measured there what is faster.
    """
    shared = onnx.ModelProto()
    shared.CopyFrom(network)
    transposes = {node.output[0]: node for node in shared.graph.node if _swaps_the_last_two(node)}
    products: dict[tuple[str, str], str] = {}
    for node in shared.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in transposes:
            continue
        transpose = transposes[node.input[1]]
        left, right = node.input[0], transpose.input[0]
        if (right, left) in products:
            axes = list(transpose.attribute[0].ints)
            name, outputs, inputs = node.name, node.output, [products[right, left]]
            node.CopyFrom(helper.make_node("Transpose", inputs, outputs, name, perm=axes))
        else:
            products[left, right] = node.output[0]
    return shared


def _swaps_the_last_two(node: onnx.NodeProto) -> bool:
    if node.op_type != "Transpose" or not node.attribute:
        return False
    axes = list(node.attribute[0].ints)
    rest = list(range(len(axes)))
    return axes == [*rest[:-2], *reversed(rest[-2:])]


def _centred(g: GraphBuilder, one: _Set, several: tuple[int, ...]) -> str:
    """Keypoints centred on the image, longest half side = 1."""
    half = g.op("Mul", one.size, g.constant(0.5))
    longest = g.op("ReduceMax", half, g.constant([-1], np.int64), keepdims=1)
    if several:
        half, longest = g.reshape(half, (*several, 1, 2)), g.reshape(longest, (*several, 1, 1))
    return g.op("Div", g.op("Sub", one.keypoints, half), longest)


def _mutual_best(
    g: GraphBuilder,
    score: str,
    first: _Set,
    second: _Set,
    threshold: float,
    several: tuple[int, ...],
) -> tuple[str, str, str]:
    """Which rows have a partner, who it is (int32), and with what score; each (K,) or (B, K)."""
    best = g.op("ReduceMax", score, g.constant([-1], np.int64), keepdims=0)
    partner = g.cast(g.op("ArgMax", score, axis=-1, keepdims=0), np.int32)
    back = g.cast(g.op("ArgMax", score, axis=-2, keepdims=0), np.int32)
    look_up = "GatherElements" if several else "Gather"
    mutual = g.op("Equal", g.op(look_up, back, partner, axis=len(several)), first.own)
    above = g.op("Greater", best, g.constant(threshold))
    exists = g.op("And", first.valid, g.op("Less", partner, second.count))
    return g.op("And", g.op("And", mutual, above), exists), partner, best


def _finish(g: GraphBuilder, shape: tuple[int, ...], kept: str, partner: str, best: str) -> None:
    none = g.constant(-1, np.int32)
    g.output(TensorSpec("matches0", shape, "int32"), g.op("Where", kept, partner, none))
    g.output(
        TensorSpec("scores0", shape, "float32"),
        g.op("Where", kept, best, g.constant(0.0)),
    )
