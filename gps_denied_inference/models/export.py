"""Export a network to an ONNX graph with symbolic sizes. Needs torch; flying does not.

The graph holds the network's weights once and is independent of image size and K;
``engines.graph.specialise`` turns it into the static graph of an engine.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import onnx
import torch

from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.runtimes.specs import Model
from gps_denied_inference.storage.writing import write_file

OPSET = 18


@dataclass(frozen=True)
class NetworkExport:
    """How a network is exported.

    Attributes:
        load: builds the network in eval mode from a model's weights.
        example: makes example inputs.
        inputs, outputs: tensor names in order, each with its symbolic axes by index.
    """

    load: Callable[[Model], torch.nn.Module]
    example: Callable[[], tuple[torch.Tensor, ...]]
    inputs: Mapping[str, Mapping[int, str]]
    outputs: Mapping[str, Mapping[int, str]]


def export_network(model: Model, destination: Path) -> str:
    """Export the network of ``model`` and return the SHA-256 (hex) of the written graph.

    The same torch version writes the same bytes.

    Raises:
        UnknownNameError, ModelNotFoundError, ModelIntegrityError, ModelMismatchError, StorageError.
    """
    description: NetworkExport = default_registry.get(model.architecture).load_network()
    network = description.load(model)
    buffer = BytesIO()
    axes = {**description.inputs, **description.outputs}
    with torch.inference_mode(), warnings.catch_warnings():
        # The TorchScript exporter is the one that needs no further library.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            description.example(),
            buffer,  # type: ignore[arg-type]
            input_names=list(description.inputs),
            output_names=list(description.outputs),
            dynamic_axes={name: dict(dims) for name, dims in axes.items() if dims},
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    graph.graph.name = model.name
    if model.weights_sha256:
        graph.doc_string = f"from weights with SHA-256 {model.weights_sha256}"
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString(deterministic=True)
    write_file(destination, content)
    return hashlib.sha256(content).hexdigest()
