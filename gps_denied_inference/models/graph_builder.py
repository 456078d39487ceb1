"""A small writer of static ONNX graphs: constants, nodes, a network grafted in, float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from gps_denied_inference.errors import ModelMismatchError
from gps_denied_inference.runtimes.specs import TensorSpec

OPSET = 18
IR_VERSION = 9  # what onnxruntime 1.16 and TensorRT 10.0 already read


class GraphBuilder:
    """Collects nodes and constants; every value is named once and referred to by its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._grafted: set[str] = set()  # weights and constants of a network that are here
        self._count = 0

    def input(self, spec: TensorSpec) -> str:
        """Declare an engine input and return its name."""
        self._inputs.append(_value_info(spec))
        return spec.name

    def output(self, spec: TensorSpec, value: str) -> None:
        """Declare ``value`` an engine output under the name of ``spec``."""
        self._nodes.append(helper.make_node("Identity", [value], [spec.name], spec.name))
        self._outputs.append(_value_info(spec))

    def constant(self, value: npt.ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant and return its name."""
        name = self._fresh("constant")
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its first output."""
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> tuple[str, ...]:
        """Add a node and return the names of all its outputs."""
        name = self._fresh(kind)
        names = tuple(name if i == 0 else f"{name}_{i}" for i in range(outputs))
        self._nodes.append(helper.make_node(kind, list(inputs), list(names), name, **attributes))
        return names

    def cast(self, value: str, dtype: type[np.generic]) -> str:
        """Cast ``value`` to a numpy dtype."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Reshape ``value`` to a static shape."""
        return self.op("Reshape", value, self.constant(shape, np.int64))

    def graft(
        self,
        network: onnx.ModelProto,
        inputs: Sequence[str],
        outputs: Sequence[str],
        half: bool,
    ) -> dict[str, str]:
        """Put a network's nodes and weights into this graph.

        Args:
            network: graph whose inputs are floats.
            inputs: values that take the place of the network's inputs, in order, float32.
            outputs: names of the network's outputs that are wanted.
            half: run the network in float16; its inputs and outputs are cast here. Angles, that
                is whatever a sine or cosine is taken of, stay float32.

        Returns:
            For each wanted output the value that carries it, float32.

        Raises:
            ModelMismatchError: the graph has other inputs or outputs than its architecture.
        """
        graph = network.graph
        present = [value.name for value in graph.output]
        if len(graph.input) != len(inputs) or not set(outputs) <= set(present):
            raise ModelMismatchError(
                f"graph '{graph.name}' takes {[v.name for v in graph.input]} and gives {present}; "
                f"its architecture needs {len(inputs)} input(s) and {list(outputs)}"
            )
        feeds = dict(zip((v.name for v in graph.input), inputs, strict=True))
        exact = _float32_values(graph) if half else set()
        cast = {
            name: self.cast(value, np.float16) if half and name not in exact else value
            for name, value in feeds.items()
        }
        found = self._graft_between(network, cast, outputs, exact, half)
        if not half:
            return found
        return {name: self.cast(value, np.float32) for name, value in found.items()}

    def graft_part(
        self, network: onnx.ModelProto, feeds: Mapping[str, str], outputs: Sequence[str]
    ) -> dict[str, str]:
        """Put the part of a network between some of its values into this graph, in float32.

        Args:
            network: graph whose inputs are floats. No node of it may be grafted twice.
            feeds: values of the network (inputs, or values within it) and what takes their place.
            outputs: values of the network that are wanted.

        Returns:
            For each wanted output the value that carries it.

        Raises:
            ModelMismatchError: the network has no such output, or needs an input that is not fed.
        """
        return self._graft_between(network, feeds, outputs, set(), half=False)

    def _graft_between(
        self,
        network: onnx.ModelProto,
        feeds: Mapping[str, str],
        outputs: Sequence[str],
        exact: set[str],
        half: bool,
    ) -> dict[str, str]:
        graph = network.graph
        needed = set(outputs) - set(feeds)
        nodes = []
        for node in reversed(graph.node):  # nodes come in topological order
            if needed & set(node.output):
                nodes.append(node)
                needed |= set(node.input) - set(feeds)
        names = {"": "", **feeds}
        for tensor in graph.initializer:
            if tensor.name not in needed:
                continue
            names[tensor.name] = f"net.{tensor.name}"
            if tensor.name not in self._grafted:
                self._grafted.add(tensor.name)
                self._constants.append(_weight(tensor, half and tensor.name not in exact))
        made = {name for node in nodes for name in node.output}
        missing = needed - made - set(names)
        if missing:
            raise ModelMismatchError(
                f"graph '{graph.name}' has no value {sorted(missing)}, which its architecture needs"
            )
        for node in reversed(nodes):
            if node.op_type == "Constant" and node.output[0] in self._grafted:
                names[node.output[0]] = f"net.{node.output[0]}"  # parts may share them
                continue
            self._grafted.update(node.output)
            self._graft_node(node, names, exact, half)
        return {name: names[name] for name in outputs}

    def _graft_node(
        self, node: onnx.NodeProto, names: dict[str, str], exact: set[str], half: bool
    ) -> None:
        """Copy one node of a network whose values are called ``names`` here."""
        clone = onnx.NodeProto()
        clone.CopyFrom(node)
        for output in node.output:
            names[output] = f"net.{output}"
        clone.name = f"net.{node.name}"
        clone.input[:] = [names[name] for name in node.input]
        clone.output[:] = [names[name] for name in node.output]
        self._nodes.append(clone)
        if not half or set(node.output) & exact:
            return
        for attribute in clone.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                attribute.t.CopyFrom(_halved(attribute.t))
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
        if node.op_type in _ANGLE_OPS:
            names[node.output[0]] = self.cast(clone.output[0], np.float16)

    def output_features(
        self, position: str, score: str, descriptors: str, dim: int, k: int, batch: int = 1
    ) -> None:
        """Declare an extractor's outputs; rows whose score is not above zero become zero.

        Args:
            position: (B * K, 2) px.
            score: (B * K,), in falling order within each image.
            descriptors: (B * K, D).
            dim, k: D and K.
            batch: B.
        """
        several = (batch,) if batch > 1 else ()
        valid = self.op("Greater", score, self.constant(0.0))
        mask = self.cast(valid, np.float32)
        column = self.reshape(mask, (batch * k, 1))
        ones = self.cast(valid, np.int32)
        if several:
            ones = self.reshape(ones, (batch, k))
        last = self.constant([len(several)], np.int64)
        count = self.op("ReduceSum", ones, last, keepdims=1)
        for name, shape, value, factor in (
            ("keypoints", (*several, k, 2), position, column),
            ("scores", (*several, k), score, mask),
            ("descriptors", (*several, k, dim), descriptors, column),
        ):
            masked = self.op("Mul", value, factor)
            masked = self.reshape(masked, shape) if several else masked
            self.output(TensorSpec(name, shape, "float32"), masked)
        self.output(TensorSpec("count", (*several, 1), "int32"), count)

    def build(self) -> onnx.ModelProto:
        """Return the finished graph."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, self._constants
        )
        return helper.make_model(
            graph,
            producer_name="gps_denied_inference",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return helper.make_tensor_value_info(spec.name, kind, list(spec.shape))


_ANGLE_OPS = ("Sin", "Cos")


def _float32_values(graph: onnx.GraphProto) -> set[str]:
    """Names that stay float32 in a float16 network: the scales of Resize, and angles."""
    exact = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
    for node in reversed(graph.node):  # nodes come in topological order
        if node.op_type in _ANGLE_OPS or set(node.output) & exact:
            exact.update(node.input)
    return exact - {""}


def _weight(tensor: onnx.TensorProto, half: bool) -> onnx.TensorProto:
    copy = TensorProto()
    copy.CopyFrom(_halved(tensor) if half else tensor)
    copy.name = f"net.{tensor.name}"
    return copy


def _halved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a float32 tensor as float16, every other as it is."""
    if tensor.data_type != TensorProto.FLOAT:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
