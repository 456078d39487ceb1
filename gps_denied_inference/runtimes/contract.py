"""The contract that every runtime keeps.

A runtime turns a :class:`Model` into an engine on disk, loads it, runs it and gives it back::

    entry = runtime.compile_engine(model, BuildConfig())
    handle = runtime.deserialize_engine(entry)
    outputs = runtime.infer(handle, {"image": image})
    runtime.release_engine(handle)

Extractor engines: input ``image`` uint8 (H, W, C), C = 1 (mono) or 3 (RGB); outputs ``keypoints``
float32 (K, 2) in px of that image with (0, 0) at the centre of the top-left pixel, ``scores``
float32 (K,), ``descriptors`` float32 (K, D) of unit norm, ``count`` int32 (1,). Rows at and after
``count`` are zero.

Matcher engines: inputs ``keypoints0`` float32 (K, 2), ``descriptors0`` float32 (K, D), ``count0``
int32 (1,), ``size0`` float32 (2,) as (width, height) in px, the same with 1; outputs ``matches0``
int32 (K,), index into the second set or -1, and ``scores0`` float32 (K,), 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gps_denied_inference.engines.manifest import EngineManifest
    from gps_denied_inference.thermal.state import ThermalState

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
        kind: ``"extractor"`` or ``"matcher"``.
        descriptor_dim: D, floats per descriptor.
        graph: ONNX graph with symbolic sizes, or None where only weights exist.
        graph_sha256: hex, of ``graph``.
        weights: PyTorch checkpoint, or None where only the graph is on disk.
        weights_sha256: hex, of ``weights`` (also known, from the zoo, where the file is absent).
    """

    name: str
    architecture: str
    kind: str
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
        max_keypoints: K, 1..3840.
        detection_threshold: keypoints whose heat is not above it are not reported.
        precision: ``"fp32"`` or ``"fp16"``.
        device: ``"cpu"``, ``"cuda"`` (= ``"cuda:0"``) or ``"cuda:N"``.
        warmup_iterations: forward passes before the handle is given out.
        threads: CPU threads of the runtime, 0 = the runtime's default.
        cuda_graph: capture the forward pass into a CUDA graph (CUDA devices only).
        options: further options by name, runtime-specific; part of the cache key.
    """

    height: int = 480
    width: int = 640
    channels: int = 1
    max_keypoints: int = 1000
    detection_threshold: float = 0.05
    precision: str = "fp32"
    device: str = "cpu"
    warmup_iterations: int = 3
    threads: int = 0
    cuda_graph: bool = True
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineCacheEntry:
    """An engine on disk: the artefact and the manifest that describes it.

    Attributes:
        artifact: the file that is deserialised.
        manifest: what it is and where it may run.
        model: the network that it was made from.
        config: what it was fixed to.
    """

    artifact: Path
    manifest: EngineManifest
    model: Model
    config: BuildConfig


@dataclass(frozen=True)
class Readback:
    """What really runs, read back from the vendor's library after loading.

    Attributes:
        runtime: label, e.g. ``"onnxruntime"``.
        version: full version of the vendor's library.
        provider: e.g. ``"CPUExecutionProvider"``, ``"CUDAExecutionProvider"``, ``"eager"``.
        device: e.g. ``"cpu"`` or ``"cuda:0 NVIDIA H100 80GB HBM3"``.
        precision: ``"fp32"`` or ``"fp16"``.
    """

    runtime: str
    version: str
    provider: str
    device: str
    precision: str


class EngineHandle:
    """A loaded engine. Opaque: only the runtime that made it may look inside.

    Attributes:
        inputs, outputs: tensor specs, in the engine's order.
        readback: what really runs.
        entry: the cache entry it was loaded from.
        load_time: s, deserialise and warm-up together.
        released: True once the runtime gave everything back.
    """

    def __init__(
        self,
        owner: object,
        payload: Any,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        readback: Readback,
        entry: EngineCacheEntry,
        load_time: float,
    ) -> None:
        self._owner = owner
        self._payload = payload
        self.inputs = inputs
        self.outputs = outputs
        self.readback = readback
        self.entry = entry
        self.load_time = load_time
        self.released = False

    def __repr__(self) -> str:
        state = "released" if self.released else self.readback.provider
        return f"<EngineHandle {self.entry.model.name} on {self.readback.runtime} ({state})>"


@runtime_checkable
class InferenceRuntime(Protocol):
    """One inference library behind the contract above.

    ``infer`` may be called from several threads: calls on one handle are serialised.
    ``thermal_state`` returns the safe default (telemetry unavailable, level UNKNOWN) while no
    source is attached.
    """

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """Build the engine, or find it in the cache. May take minutes.

        Raises:
            RuntimeUnavailableError, ModelError, StorageError, EngineBuildError.
        """
        ...

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Pass the gate, load, move to the device and warm up.

        Raises:
            EngineRejectedError, EngineLoadError, UnsupportedDeviceError, ReadbackMismatchError,
            DeviceOutOfMemoryError.
        """
        ...

    def infer(self, handle: EngineHandle, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one forward pass; the returned arrays are the caller's own.

        Raises:
            InvalidHandleError, InputMismatchError, InferenceError, DeviceOutOfMemoryError.
        """
        ...

    def release_engine(self, handle: EngineHandle) -> None:
        """Free device memory. Releasing twice is fine; a foreign handle is refused."""
        ...

    def thermal_state(self) -> ThermalState:
        """Return the newest thermal state."""
        ...

    def current_runtime_label(self) -> str:
        """Return the registry name, e.g. ``"onnxruntime"``."""
        ...
