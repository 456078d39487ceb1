"""The whole XFeat extractor as one static ONNX graph, built without torch.

It does what ``models.xfeat.XFeatExtractor`` does, with operators that the CPU, CUDA and
TensorRT execution providers all have: no NonZero, no MaxPool with indices, nothing whose shape
depends on data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from gps_denied_inference.models.graph_builder import GraphBuilder
from gps_denied_inference.models.sampling import bicubic_taps, bilinear_matrix
from gps_denied_inference.runtimes.specs import BuildConfig, Model, TensorSpec

_CELL = 8  # px of the image per cell of the feature map
_MULTIPLE = 32  # px; the network halves the image five times
_NETWORK_OUTPUTS = ("features", "keypoint_logits", "reliability")


@dataclass(frozen=True)
class _Size:
    """Sizes of one engine, px of the inner image and cells of the maps, and images at a time."""

    height: int
    width: int
    batch: int

    @property
    def rows(self) -> int:
        return self.height // _CELL

    @property
    def columns(self) -> int:
        return self.width // _CELL

    def starts(self, each: int, stride: int) -> npt.NDArray[np.int32]:
        """Return where in a flat array the image of each row begins, (B * each,).

        Args:
            each: rows of an image.
            stride: values of an image.
        """
        return np.repeat(np.arange(self.batch, dtype=np.int32) * stride, each)


def assemble(network: onnx.ModelProto, model: Model, config: BuildConfig) -> onnx.ModelProto:
    """Build the extractor's graph for one image size, K, threshold and precision.

    Raises:
        ModelMismatchError: ``network`` is the graph of another architecture.
    """
    height, width = (side // _MULTIPLE * _MULTIPLE for side in (config.height, config.width))
    size = _Size(height, width, config.batch)
    keypoints, dim = config.max_keypoints, model.descriptor_dim
    g = GraphBuilder(model.name)
    several = (config.batch,) if config.batch > 1 else ()
    shape = (*several, config.height, config.width, config.channels)
    image = g.input(TensorSpec("image", shape, "uint8"))
    gray = _normalised(g, image, config, size)
    maps = g.graft(network, [gray], _NETWORK_OUTPUTS, half=config.precision == "fp16")
    heat = _heat(g, maps["keypoint_logits"], size)
    score = _scores(g, heat, maps["reliability"], config.detection_threshold, size)
    best, x, y = _top(g, score, config, size)
    descriptors = _descriptors(g, maps["features"], x, y, keypoints, dim, size)
    position = _to_source(g, x, y, keypoints, config, size)
    g.output_features(position, best, descriptors, dim, keypoints, size.batch)
    return g.build()


def _normalised(g: GraphBuilder, image: str, config: BuildConfig, size: _Size) -> str:
    """Channel mean, resize to multiples of 32, zero mean and unit variance: (B, 1, H, W)."""
    gray = g.cast(image, np.float32)
    if config.channels > 1:
        gray = g.op("ReduceMean", gray, g.constant([-1], np.int64), keepdims=0)
    gray = g.reshape(gray, (size.batch, 1, config.height, config.width))
    if (config.height, config.width) != (size.height, size.width):
        sizes = g.constant([size.batch, 1, size.height, size.width], np.int64)
        gray = g.op(
            "Resize", gray, "", "", sizes,
            mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
    if not config.device.startswith("cuda"):
        return g.op(
            "InstanceNormalization", gray, g.constant([1.0]), g.constant([0.0]), epsilon=1e-5
        )
    # On a GPU the library gives each channel to one block of threads, and this image has one
    # channel: 112 us on an H100, where two reductions over the whole chip take 17 us.
    axes = g.constant([2, 3], np.int64)
    centred = g.op("Sub", gray, g.op("ReduceMean", gray, axes, keepdims=1))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes, keepdims=1)
    deviation = g.op("Sqrt", g.op("Add", variance, g.constant([1e-5])))
    return g.op("Div", centred, deviation)


def _heat(g: GraphBuilder, logits: str, size: _Size) -> str:
    """Probability of a keypoint at each pixel, (B, 1, H, W)."""
    # Channels last: softmax runs along contiguous memory on every provider.
    last = g.op("Transpose", logits, perm=[0, 2, 3, 1])
    probability = g.op("Softmax", last, axis=-1)
    axis = g.constant([3], np.int64)
    pixels = g.op(
        "Slice", probability, g.constant([0], np.int64), g.constant([_CELL**2], np.int64), axis
    )
    cells = g.reshape(pixels, (size.batch * size.rows, size.columns, _CELL, _CELL))
    heat = g.op("Transpose", cells, perm=[0, 2, 1, 3])
    return g.reshape(heat, (size.batch, 1, size.height, size.width))


def _scores(g: GraphBuilder, heat: str, reliability: str, threshold: float, size: _Size) -> str:
    """Heat times reliability where the heat is a 5x5 maximum above the threshold, else zero."""
    highest = g.op("MaxPool", heat, kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    # heat > threshold, written as heat >= the next float32, shares one comparison with the maximum.
    above = np.nextafter(np.float32(threshold), np.float32(np.inf))
    peak = g.op("GreaterOrEqual", heat, g.op("Max", highest, g.constant(above)))
    cells = g.reshape(reliability, (size.batch * size.rows, size.columns))
    # Columns first: fewer multiplications for an image that is wider than high.
    wide = g.op("MatMul", cells, g.constant(bilinear_matrix(size.width, size.columns).T))
    if size.batch > 1:
        wide = g.reshape(wide, (size.batch, size.rows, size.width))
    full = g.op("MatMul", g.constant(bilinear_matrix(size.height, size.rows)), wide)
    score = g.op("Mul", heat, g.reshape(full, (size.batch, 1, size.height, size.width)))
    return g.op("Mul", score, g.cast(peak, np.float32))


def _top(g: GraphBuilder, score: str, config: BuildConfig, size: _Size) -> tuple[str, str, str]:
    """Scores, x and y (B * K,) int32 in px of the inner image of the K best pixels of each."""
    # Peaks of a 5x5 non-maximum suppression lie at least 3 px apart: a 2x2 block holds one.
    keypoints, rows = config.max_keypoints, size.batch * config.max_keypoints
    columns = size.width // 2
    blocks = size.height // 2 * columns
    best = g.op("MaxPool", score, kernel_shape=[2, 2], strides=[2, 2])
    best = g.reshape(best, (size.batch, blocks))
    if keypoints > blocks:
        missing = g.constant(np.zeros((size.batch, keypoints - blocks)))
        best = g.op("Concat", best, missing, axis=1)
    groups = _groups(blocks, keypoints) if config.device.startswith("cuda") else 1
    scores, index = _best(g, best, size, max(blocks, keypoints), keypoints, groups)
    if keypoints > blocks:
        index = g.op("Min", index, g.constant(blocks - 1, np.int32))
    width = g.constant(columns, np.int32)
    block_y = g.op("Div", index, width)
    block_x = g.op("Sub", index, g.op("Mul", block_y, width))
    two = g.constant(2, np.int32)
    x, y = g.op("Mul", block_x, two), g.op("Mul", block_y, two)
    corner = g.op("Add", g.op("Mul", y, g.constant(size.width, np.int32)), x)
    area = size.height * size.width
    if size.batch > 1:
        corner = g.op("Add", corner, g.constant(size.starts(keypoints, area), np.int32))
    offsets = g.constant([[0, 1, size.width, size.width + 1]], np.int32)
    pixels = g.op("Add", g.reshape(corner, (rows, 1)), offsets)
    values = g.op("Gather", g.reshape(score, (size.batch * area,)), pixels, axis=0)
    place = g.cast(g.op("ArgMax", values, axis=1, keepdims=0), np.int32)
    down = g.op("Div", place, two)
    x = g.op("Add", x, g.op("Sub", place, g.op("Mul", down, two)))
    return scores, x, g.op("Add", y, down)


def _groups(values: int, keypoints: int) -> int:
    """Rows to search side by side: the divisor of ``values`` nearest below the optimum.

    A GPU's TopK gives each row to one block of threads, so the K best of R rows and then of the
    R * K left take time in proportion to values / R + R * K, least at R = sqrt(values / K).
    """
    most = max(1, math.isqrt(values // keypoints))
    return next(rows for rows in range(most, 0, -1) if values % rows == 0)


def _best(
    g: GraphBuilder, values: str, size: _Size, count: int, keypoints: int, groups: int
) -> tuple[str, str]:
    """The K largest of each row in falling order and their indices, (B * K,) float32 and int32.

    Args:
        values: (B, count).
        size: for B.
        count, keypoints, groups: K is ``keypoints``; ``groups`` as :func:`_groups` has it.
    """
    batch, number = size.batch, g.constant([keypoints], np.int64)
    if groups == 1:
        best, index = g.ops("TopK", values, number, outputs=2, axis=1, largest=1, sorted=1)
        flat = (batch * keypoints,)
        return g.reshape(best, flat), g.reshape(g.cast(index, np.int32), flat)
    rows = g.reshape(values, (batch * groups, count // groups))
    # Exact: whatever is among the K best of all is among the K best of its row.
    best, column = g.ops("TopK", rows, number, outputs=2, axis=1, largest=1, sorted=1)
    start = np.tile(np.arange(groups) * (count // groups), batch)[:, None]
    index = g.op("Add", g.cast(column, np.int32), g.constant(start, np.int32))
    index = g.reshape(index, (batch * groups * keypoints,))
    best = g.reshape(best, (batch, groups * keypoints))
    best, chosen = g.ops("TopK", best, number, outputs=2, axis=1, largest=1, sorted=1)
    place = g.reshape(g.cast(chosen, np.int32), (batch * keypoints,))
    if batch > 1:
        starts = size.starts(keypoints, groups * keypoints)
        place = g.op("Add", place, g.constant(starts, np.int32))
    return g.reshape(best, (batch * keypoints,)), g.op("Gather", index, place, axis=0)


def _descriptors(
    g: GraphBuilder, features: str, x: str, y: str, keypoints: int, dim: int, size: _Size
) -> str:
    """Unit descriptors (B * K, D), bicubic in the dense map of unit descriptors."""
    cells, rows = size.rows * size.columns, size.batch * keypoints
    dense = g.op("Transpose", g.reshape(features, (size.batch, dim, cells)), perm=[0, 2, 1])
    dense = _unit(g, g.reshape(dense, (size.batch * cells, dim)))
    taps, factors = [], []
    for value, pixels, count, stride, shape in (
        (y, size.height, size.rows, size.columns, (rows, 4, 1)),
        (x, size.width, size.columns, 1, (rows, 1, 4)),
    ):
        tap, weight = bicubic_taps(pixels, count)
        row = g.op("Gather", g.constant(tap * stride, np.int32), value, axis=0)
        taps.append(g.reshape(row, shape))
        row = g.op("Gather", g.constant(weight), value, axis=0)
        factors.append(g.reshape(row, shape))
    index = g.reshape(g.op("Add", *taps), (rows, 16))
    if size.batch > 1:
        starts = size.starts(keypoints, cells)[:, None]
        index = g.op("Add", index, g.constant(starts, np.int32))
    blend = g.reshape(g.op("Mul", *factors), (rows, 1, 16))
    neighbours = g.op("Gather", dense, index, axis=0)
    sampled = g.reshape(g.op("MatMul", blend, neighbours), (rows, dim))
    return _unit(g, sampled)


def _unit(g: GraphBuilder, rows: str) -> str:
    """Rows of unit length. LpNormalization would say it shorter; older CUDA providers lack it."""
    length = g.op("ReduceL2", rows, g.constant([1], np.int64), keepdims=1)
    return g.op("Div", rows, g.op("Max", length, g.constant(1e-12)))


def _to_source(
    g: GraphBuilder, x: str, y: str, keypoints: int, config: BuildConfig, size: _Size
) -> str:
    """Keypoints (B * K, 2) float32 px of the engine's image, pixel centres at whole numbers."""
    column = (size.batch * keypoints, 1)
    inner = g.op("Concat", g.reshape(x, column), g.reshape(y, column), axis=1)
    inner = g.cast(inner, np.float32)
    if (config.height, config.width) == (size.height, size.width):
        return inner
    scale = np.array([[config.width / size.width, config.height / size.height]])
    scaled = g.op("Mul", inner, g.constant(scale))
    return g.op("Add", scaled, g.constant(0.5 * scale - 0.5))
