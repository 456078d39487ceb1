"""Turn a model's graph with symbolic sizes into the static graph of one engine. No torch."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper

from gps_denied_inference.errors import (
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
)
from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.runtimes.specs import BuildConfig, Model, TensorSpec, check_bounds
from gps_denied_inference.storage.writing import write_file


def specialise(
    model: Model, config: BuildConfig, destination: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Write the static ONNX graph of ``model`` for ``config``.

    Image size, channels, K, detection threshold and precision are fixed in it; in float16 the
    image normalisation, all coordinates and the inputs and outputs stay float32.

    Args:
        model: needs ``graph``.
        config: what the engine is fixed to.
        destination: file to write; it appears whole or not at all.

    Returns:
        Specs of the inputs and of the outputs, in the order of ``runtimes.contract``.

    Raises:
        InvalidParameterError: a size, K, threshold, channel count or precision out of bounds.
        ModelNotFoundError, ModelIntegrityError, ModelMismatchError: the graph cannot be used.
        StorageError: ``destination`` cannot be written.
    """
    graph = specialised_graph(model, config)
    content = graph.SerializeToString(deterministic=True)
    write_file(Path(destination), content, "the graph")
    return _specs(graph.graph.input), _specs(graph.graph.output)


def specialised_graph(model: Model, config: BuildConfig) -> onnx.ModelProto:
    """Return the static graph that :func:`specialise` writes. Raises as it does."""
    check_bounds(config, step=1)
    network = read_graph(model)
    graph = default_registry.get(model.architecture).assemble(network, model, config)
    graph.doc_string = f"{model.name} from graph with SHA-256 {model.graph_sha256}"
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelMismatchError(
            f"the graph {model.graph} does not fit architecture '{model.architecture}'"
        ) from error
    return graph


def read_graph(model: Model) -> onnx.ModelProto:
    """Read the model's graph with symbolic sizes.

    Raises:
        ModelNotFoundError: there is no graph on disk.
        ModelIntegrityError: the file is truncated or is no ONNX graph.
    """
    if model.graph is None:
        raise ModelNotFoundError(
            f"'{model.name}' has no graph on disk; make it with 'gdi models export {model.name}' "
            f"(needs torch)"
        )
    try:
        graph = onnx.load(model.graph)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"no graph at {model.graph}") from error
    except (DecodeError, OSError, ValueError) as error:
        raise ModelIntegrityError(
            f"{model.graph} is not a readable ONNX graph (truncated, or another kind of file)"
        ) from error
    if not graph.graph.node:
        raise ModelIntegrityError(f"{model.graph} is not an ONNX graph: it has no nodes")
    return graph


def _specs(values: object) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:  # type: ignore[attr-defined]
        tensor = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)
        specs.append(TensorSpec(value.name, shape, dtype))
    return tuple(specs)
