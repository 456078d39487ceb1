"""What an engine is asked for and made of: tensors, networks, build configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import InvalidParameterError

ModelKind = Literal["extractor", "matcher", "network"]
"""What an engine does. For a ``network`` of any other use no tensors are laid down."""
Precision = Literal["fp32", "fp16"]
AskedPrecision = Literal["auto", "fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

MIN_IMAGE_SIDE, MAX_IMAGE_SIDE = 32, 8192
"""px; larger images cannot be worked on in one piece on any supported device."""
IMAGE_SIDE_STEP = 32
"""px; the networks halve an image five times."""
MAX_KEYPOINTS = 3840
"""TensorRT's TopK takes no more; the same bound for every runtime keeps them interchangeable."""
MIN_DETECTION_THRESHOLD, MAX_DETECTION_THRESHOLD = 0.0, 1.0
MAX_WARMUP_ITERATIONS = 100
MAX_THREADS = 256
MAX_BATCH = 16
"""Images at a time; no aircraft carries more cameras on one accelerator."""

Tensors = Mapping[str, npt.NDArray[Any]]
Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and one line that says what is being done."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and numpy dtype name of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def zeros(self) -> npt.NDArray[Any]:
        """Return a zero tensor of this shape and dtype."""
        return np.zeros(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class Model:
    """A network with the local files it is made of (see ``models.zoo.resolve``).

    Attributes:
        name: name in the zoo, e.g. ``"xfeat"``.
        architecture: name in the architecture registry.
        kind: what its engines do.
        descriptor_dim: D, floats per descriptor.
        graph: ONNX graph with symbolic sizes, or None where only weights exist.
        graph_sha256: hex, of ``graph``.
        weights: PyTorch checkpoint, or None where only the graph is on disk.
        weights_sha256: hex, of ``weights`` (also known, from the zoo, where the file is absent).
    """

    name: str
    architecture: str
    kind: ModelKind
    descriptor_dim: int
    graph: Path | None = None
    graph_sha256: str = ""
    weights: Path | None = None
    weights_sha256: str = ""


@dataclass(frozen=True)
class BuildConfig:
    """What an engine is fixed to when it is prepared.

    Attributes:
        height, width: px, image size that the engine takes.
        channels: 1 (mono) or 3 (RGB).
        max_keypoints: K, 1..:data:`MAX_KEYPOINTS`.
        detection_threshold: keypoints whose heat is not above it are not reported.
        precision: of the arithmetic; inputs and outputs are float32 in either.
        device: ``"cpu"``, ``"cuda"`` (= ``"cuda:0"``) or ``"cuda:N"``.
        warmup_iterations: forward passes before the handle is given out.
        threads: CPU threads of the runtime, 0 = the runtime's default.
        cuda_graph: capture the forward pass into a CUDA graph (CUDA devices only).
        batch: images that an extractor takes at a time, or pairs of sets a matcher,
            1..:data:`MAX_BATCH`.
        options: further options by name, runtime-specific; part of the cache key.
    """

    height: int = 480
    width: int = 640
    channels: int = 1
    max_keypoints: int = 1000
    detection_threshold: float = 0.05
    precision: Precision = "fp32"
    device: str = "cpu"
    warmup_iterations: int = 3
    threads: int = 0
    cuda_graph: bool = True
    batch: int = 1
    options: Mapping[str, str] = field(default_factory=dict)


def expected_tensors(
    kind: ModelKind,
    descriptor_dim: int,
    height: int,
    width: int,
    channels: int,
    max_keypoints: int,
    batch: int = 1,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None:
    """Return the inputs and outputs that ``runtimes.contract`` lays down for an engine.

    Args:
        kind: for ``"network"`` the answer is None.
        descriptor_dim: D.
        height, width: px.
        channels: C.
        max_keypoints: K.
        batch: images, or pairs of sets, at a time; more than one are a leading dimension of every
            tensor.
    """
    k, d = max_keypoints, descriptor_dim
    several = (batch,) if batch > 1 else ()
    if kind == "extractor":
        return (
            (TensorSpec("image", (*several, height, width, channels), "uint8"),),
            (
                TensorSpec("keypoints", (*several, k, 2), "float32"),
                TensorSpec("scores", (*several, k), "float32"),
                TensorSpec("descriptors", (*several, k, d), "float32"),
                TensorSpec("count", (*several, 1), "int32"),
            ),
        )
    if kind == "matcher":
        inputs: list[TensorSpec] = []
        for side in "01":
            inputs += [
                TensorSpec(f"keypoints{side}", (*several, k, 2), "float32"),
                TensorSpec(f"descriptors{side}", (*several, k, d), "float32"),
                TensorSpec(f"count{side}", (*several, 1), "int32"),
                TensorSpec(f"size{side}", (*several, 2), "float32"),
            ]
        return (
            tuple(inputs),
            (
                TensorSpec("matches0", (*several, k), "int32"),
                TensorSpec("scores0", (*several, k), "float32"),
            ),
        )
    return None


def engine_tensors(
    model: Model, config: BuildConfig
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None:
    """Return :func:`expected_tensors` of a model under a build configuration."""
    return expected_tensors(
        model.kind,
        model.descriptor_dim,
        config.height,
        config.width,
        config.channels,
        config.max_keypoints,
        config.batch,
    )


def check_bounds(config: BuildConfig, step: int = IMAGE_SIDE_STEP) -> None:
    """Refuse sizes, thresholds and counts that no engine can have.

    Args:
        step: px, of which both sides of the image are a multiple.

    Raises:
        InvalidParameterError: names the field, its value and the bound.
    """
    for name in ("height", "width"):
        value = getattr(config, name)
        if not _whole(value, MIN_IMAGE_SIDE, MAX_IMAGE_SIDE) or value % step:
            raise InvalidParameterError(name, value, image_side_bound(step))
    if config.channels not in (1, 3) or isinstance(config.channels, bool):
        raise InvalidParameterError("channels", config.channels, "1 (mono) or 3 (RGB)")
    for name, low, high in (
        ("max_keypoints", 1, MAX_KEYPOINTS),
        ("warmup_iterations", 0, MAX_WARMUP_ITERATIONS),
        ("threads", 0, MAX_THREADS),
        ("batch", 1, MAX_BATCH),
    ):
        if not _whole(getattr(config, name), low, high):
            raise InvalidParameterError(
                name, getattr(config, name), f"a whole number in {low}..{high}"
            )
    threshold = config.detection_threshold
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if not is_number or not MIN_DETECTION_THRESHOLD <= threshold <= MAX_DETECTION_THRESHOLD:
        bound = f"a number in {MIN_DETECTION_THRESHOLD:g}..{MAX_DETECTION_THRESHOLD:g}"
        raise InvalidParameterError("detection_threshold", threshold, bound)
    if config.precision not in PRECISIONS:
        raise InvalidParameterError("precision", config.precision, "'fp32' or 'fp16'")


def image_side_bound(step: int = IMAGE_SIDE_STEP) -> str:
    """Return what a side of an engine's image must be, in words."""
    kind = "whole number" if step == 1 else f"multiple of {step}"
    return f"a {kind} in {MIN_IMAGE_SIDE}..{MAX_IMAGE_SIDE} px"


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
