"""Our side of a contest: engines of one runtime, built afresh in a folder of their own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.models.graph_builder import GraphBuilder
from gps_denied_inference.models.specialise import read_graph
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineHandle,
    InferenceRuntime,
    Model,
    TensorSpec,
)
from gps_denied_inference.runtimes.table import find

Arrays = dict[str, npt.NDArray[Any]]
MAPS = {"features": 64, "keypoint_logits": 65, "reliability": 1}
"""Outputs of XFeat's network and their channels."""


class Engine:
    """One loaded engine; a context manager that gives it back."""

    def __init__(self, runtime: InferenceRuntime, model: Model, config: BuildConfig) -> None:
        self._runtime = runtime
        self.model = model
        self.handle: EngineHandle = runtime.deserialize_engine(
            runtime.compile_engine(model, config)
        )

    def __call__(self, **inputs: npt.NDArray[Any]) -> Arrays:
        """Run one forward pass."""
        return self._runtime.infer(self.handle, inputs)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._runtime.release_engine(self.handle)


def open_engine(name: str, runtime: str, config: BuildConfig, folder: Path) -> Engine:
    """Build and load an engine of a model of the zoo. Raises as the runtime does."""
    model = zoo.resolve(name, need_weights=find(runtime)[0].needs_weights)
    return Engine(create_runtime(runtime, cache=EngineCache(folder)), model, config)


def open_network(config: BuildConfig, folder: Path) -> Engine:
    """Build and load XFeat's network alone, normalised image in and maps out, on ONNX Runtime.

    Raises as the runtime does.
    """
    # Another name and kind: neither cache nor gate must take it for the extractor.
    model = dataclasses.replace(zoo.resolve("xfeat"), name="xfeat-network", kind="network")
    runtime = create_runtime(
        "onnxruntime", cache=EngineCache(folder), specialise=_specialise_network
    )
    return Engine(runtime, model, config)


def _specialise_network(
    model: Model, config: BuildConfig, destination: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    height, width = config.height // 32 * 32, config.width // 32 * 32
    g = GraphBuilder(model.name)
    image = TensorSpec("image", (1, 1, height, width), "float32")
    values = g.graft(
        read_graph(model), [g.input(image)], list(MAPS), half=config.precision == "fp16"
    )
    outputs = tuple(
        TensorSpec(f"{name}_map", (1, channels, height // 8, width // 8), "float32")
        for name, channels in MAPS.items()
    )
    for spec, value in zip(outputs, values.values(), strict=True):
        g.output(spec, value)
    onnx.save(g.build(), destination)
    return (image,), outputs


def matcher_inputs(first: Arrays, second: Arrays, size: tuple[int, int]) -> Arrays:
    """Return the inputs of a matcher engine from the outputs of an extractor engine."""
    inputs: Arrays = {}
    for index, found in enumerate((first, second)):
        for name in ("keypoints", "descriptors", "count"):
            inputs[f"{name}{index}"] = found[name]
        inputs[f"size{index}"] = np.array(size, np.float32)
    return inputs


def features_of(found: Arrays, size: tuple[int, int], model: Model) -> Features:
    """Return the outputs of an extractor engine as features, without padding.

    Args:
        found: the outputs.
        size: (width, height) of the image, px.
        model: the extractor.
    """
    rows = slice(int(found["count"][0]))
    return Features(
        found["keypoints"][rows], found["scores"][rows], found["descriptors"][rows],
        *size, model.name, model.graph_sha256,
    )  # fmt: skip


def pairs_of(matches: npt.NDArray[np.int32]) -> set[tuple[int, int]]:
    """Return a matcher engine's pairs as a set."""
    return {(int(i), int(matches[i])) for i in np.flatnonzero(matches >= 0)}
