"""The whole ALIKED extractor as one static ONNX graph, built without torch.

It does what ``models.aliked.AlikedExtractor`` does. The network is cut in two: detection
lies between its dense maps and its descriptor head.
"""

from __future__ import annotations

import numpy as np
import onnx

from gps_denied_inference.models.aliked.options import (
    RADIUS,
    TEMPERATURE,
    check_config,
)
from gps_denied_inference.models.graph_builder import GraphBuilder
from gps_denied_inference.runtimes.specs import BuildConfig, Model, TensorSpec


def assemble(network: onnx.ModelProto, model: Model, config: BuildConfig) -> onnx.ModelProto:
    """Build the extractor's graph for one image size, K and threshold.

    Raises:
        ModelMismatchError: ``network`` is the graph of another architecture.
        InvalidParameterError: half precision, or a side that is no multiple of 32 px.
    """
    check_config(config)
    keypoints, dim = config.max_keypoints, model.descriptor_dim
    g = GraphBuilder(model.name)
    image = g.input(TensorSpec("image", (config.height, config.width, config.channels), "uint8"))
    rgb = g.op("Transpose", g.cast(image, np.float32), perm=[2, 0, 1])
    rgb = g.op("Mul", g.op("Unsqueeze", rgb, g.constant([0], np.int64)), g.constant(1.0 / 255.0))
    if config.channels == 1:
        rgb = g.op("Concat", rgb, rgb, rgb, axis=1)
    maps = g.graft_part(network, {"image": rgb}, ["scores", "features"])
    position, score = _detect(g, maps["scores"], config)
    feeds = {"keypoints": position, "features": maps["features"]}
    descriptors = g.graft_part(network, feeds, ["descriptors"])["descriptors"]
    g.output_features(position, score, descriptors, dim, keypoints)
    return g.build()


def _suppress(g: GraphBuilder, scores: str) -> str:
    """Maxima within the radius, and in two more rounds those hidden by what is suppressed."""

    def highest(value: str) -> str:
        return g.op("MaxPool", value, kernel_shape=[2 * RADIUS + 1] * 2, pads=[RADIUS] * 4)

    zero = g.constant(0.0)
    kept = g.op("Equal", scores, highest(scores))
    for _ in range(2):
        near = g.op("Greater", highest(g.cast(kept, np.float32)), zero)
        rest = g.op("Where", near, zero, scores)
        fresh = g.op("And", g.op("Equal", rest, highest(rest)), g.op("Not", near))
        kept = g.op("Or", kept, fresh)
    return kept


def _detect(g: GraphBuilder, heat: str, config: BuildConfig) -> tuple[str, str]:
    """Positions (K, 2) px and scores (K,) in falling order, 0 for no keypoint."""
    height, width, keypoints = config.height, config.width, config.max_keypoints
    inside = np.zeros((1, 1, height, width), np.bool_)
    inside[..., RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    kept = g.op("And", _suppress(g, heat), g.constant(inside, np.bool_))
    above = g.op("Greater", heat, g.constant(config.detection_threshold))
    peaks = g.op("Where", g.op("And", kept, above), heat, g.constant(0.0))
    peaks = g.reshape(peaks, (height * width,))
    if keypoints > height * width:
        peaks = g.op("Concat", peaks, g.constant(np.zeros(keypoints - height * width)), axis=0)
    number = g.constant([keypoints], np.int64)
    found, index = g.ops("TopK", peaks, number, outputs=2, axis=0, largest=1, sorted=1)
    last = g.constant(height * width - 1, np.int64)
    index = g.cast(g.op("Min", index, last), np.int32)
    y = g.op("Div", index, g.constant(width, np.int32))
    x = g.op("Sub", index, g.op("Mul", y, g.constant(width, np.int32)))

    padded_width = width + 2 * RADIUS
    pads = g.constant([0, 0, RADIUS, RADIUS] * 2, np.int64)
    padded = g.reshape(g.op("Pad", heat, pads), ((height + 2 * RADIUS) * padded_width,))
    side = np.arange(2 * RADIUS + 1)
    taps = (side[:, None] * padded_width + side).reshape(1, -1)
    corner = g.op("Add", g.op("Mul", y, g.constant(padded_width, np.int32)), x)
    near = g.op("Add", g.reshape(corner, (keypoints, 1)), g.constant(taps, np.int32))
    patch = g.op("Gather", padded, near, axis=0)
    weight = g.op("Softmax", g.op("Mul", patch, g.constant(1.0 / TEMPERATURE)), axis=1)
    offsets = np.stack(np.meshgrid(side - RADIUS, side - RADIUS), axis=-1).reshape(-1, 2)
    column = (keypoints, 1)
    pixel = g.op("Concat", g.reshape(x, column), g.reshape(y, column), axis=1)
    shift = g.op("MatMul", weight, g.constant(offsets))
    position = g.op("Add", g.cast(pixel, np.float32), shift)

    scale = g.constant(np.array([[2.0 / (width - 1), 2.0 / (height - 1)]]))
    grid = g.op("Sub", g.op("Mul", position, scale), g.constant(1.0))
    score = g.op(
        "GridSample", heat, g.reshape(grid, (1, 1, keypoints, 2)),
        mode="bilinear", padding_mode="zeros", align_corners=1,
    )  # fmt: skip
    real = g.cast(g.op("Greater", found, g.constant(0.0)), np.float32)
    score = g.op("Mul", g.reshape(score, (keypoints,)), real)
    score, order = g.ops("TopK", score, number, outputs=2, axis=0, largest=1, sorted=1)
    return g.op("Gather", position, order, axis=0), score
