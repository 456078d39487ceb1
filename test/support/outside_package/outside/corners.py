"""A network of two convolutions with fixed weights: contrast as the score, 16 filters around a
point as its descriptor. One file, one entry point.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gps_denied_inference.errors import ModelNotFoundError
from gps_denied_inference.models import register_architecture
from gps_denied_inference.models.zoo import ZooEntry, register_model
from gps_denied_inference.runtimes.contract import BuildConfig, Model

GRAPH = Path(__file__).with_name("corners.onnx")
DIM = 16


def register() -> None:
    """Make the architecture and the model known."""
    register_architecture("outside_corners", "outside.corners:load_module", graph=assemble)
    register_model(
        ZooEntry(
            name="outside-corners",
            architecture="outside_corners",
            kind="extractor",
            descriptor_dim=DIM,
            licence="Apache-2.0",
            origin="made by hand",
            graph=str(GRAPH),
            graph_sha256=hashlib.sha256(GRAPH.read_bytes()).hexdigest(),
            precisions=("fp32",),
        )
    )


def load_module(model: Model, config: BuildConfig) -> object:
    """Refuse: this network has no torch half."""
    raise ModelNotFoundError("outside-corners is a graph only")


def network() -> onnx.ModelProto:
    """Return the graph that ships: grey image (1, 1, H, W) to filtered (1, 17, H, W)."""
    filters = np.random.default_rng(0).normal(size=(DIM + 1, 1, 7, 7)).astype(np.float32)
    filters -= filters.mean(axis=(2, 3), keepdims=True)
    node = helper.make_node("Conv", ["grey", "filters"], ["filtered"], pads=[3, 3, 3, 3])
    grey = helper.make_tensor_value_info("grey", TensorProto.FLOAT, [1, 1, "H", "W"])
    out = helper.make_tensor_value_info("filtered", TensorProto.FLOAT, [1, DIM + 1, "H", "W"])
    weights = [numpy_helper.from_array(filters, "filters")]
    graph = helper.make_graph([node], "corners", [grey], [out], weights)
    opset = helper.make_operatorsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


def assemble(network: onnx.ModelProto, model: Model, config: BuildConfig) -> onnx.ModelProto:
    """Fix sizes, K and threshold; keep local maxima of the contrast, strongest first."""
    height, width, k = config.height, config.width, config.max_keypoints
    constants = {
        "image_shape": np.array([1, 1, height, width], np.int64),
        "flat": np.array([height * width], np.int64),
        "rows": np.array([DIM, height * width], np.int64),
        "k": np.array([k], np.int64),
        "scale": np.array(1 / 255, np.float32),
        "threshold": np.array(config.detection_threshold, np.float32),
        "width": np.array(width, np.int64),
        "last": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "first": np.array([1], np.int64),
        "end": np.array([DIM + 1], np.int64),
        "channel": np.array([1], np.int64),
        "tiny": np.array(1e-6, np.float32),
    }
    make = helper.make_node
    nodes = [
        make("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        make("Mul", ["float", "scale"], ["unit"]),
        make("Reshape", ["unit", "image_shape"], ["grey"]),
        *network.graph.node,
        make("Slice", ["filtered", "zero", "first", "channel"], ["response"]),
        make("Abs", ["response"], ["contrast"]),
        make("MaxPool", ["contrast"], ["peak"], kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        make("Equal", ["contrast", "peak"], ["is_peak"]),
        make("Cast", ["is_peak"], ["peak_mask"], to=TensorProto.FLOAT),
        make("Mul", ["contrast", "peak_mask"], ["heat"]),
        make("Reshape", ["heat", "flat"], ["flat_heat"]),
        make("TopK", ["flat_heat", "k"], ["best", "index"]),
        make("Greater", ["best", "threshold"], ["kept"]),
        make("Cast", ["kept"], ["mask"], to=TensorProto.FLOAT),
        make("Mul", ["best", "mask"], ["scores"]),
        make("Cast", ["kept"], ["ones"], to=TensorProto.INT32),
        make("ReduceSum", ["ones", "zero"], ["count"], keepdims=1),
        make("Div", ["index", "width"], ["y"]),
        make("Mod", ["index", "width"], ["x"]),
        make("Unsqueeze", ["x", "last"], ["x1"]),
        make("Unsqueeze", ["y", "last"], ["y1"]),
        make("Concat", ["x1", "y1"], ["places"], axis=1),
        make("Cast", ["places"], ["points"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["mask", "last"], ["mask1"]),
        make("Mul", ["points", "mask1"], ["keypoints"]),
        make("Slice", ["filtered", "first", "end", "channel"], ["around"]),
        make("Reshape", ["around", "rows"], ["dense"]),
        make("Gather", ["dense", "index"], ["columns"], axis=1),
        make("Transpose", ["columns"], ["raw"], perm=[1, 0]),
        make("ReduceL2", ["raw"], ["norm"], axes=[1], keepdims=1),
        make("Max", ["norm", "tiny"], ["safe"]),
        make("Div", ["raw", "safe"], ["described"]),
        make("Mul", ["described", "mask1"], ["descriptors"]),
    ]
    info = helper.make_tensor_value_info
    outputs = [
        info("keypoints", TensorProto.FLOAT, [k, 2]),
        info("scores", TensorProto.FLOAT, [k]),
        info("descriptors", TensorProto.FLOAT, [k, DIM]),
        info("count", TensorProto.INT32, [1]),
    ]
    image = info("image", TensorProto.UINT8, [height, width, config.channels])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    initializers += network.graph.initializer
    graph = helper.make_graph(nodes, model.name, [image], outputs, initializers)
    opset = helper.make_operatorsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


if __name__ == "__main__":
    GRAPH.write_bytes(network().SerializeToString(deterministic=True))
