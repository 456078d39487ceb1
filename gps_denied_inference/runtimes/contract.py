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

With ``BuildConfig.batch`` B > 1 every tensor has a leading dimension B, and the answer of each
image, or pair of sets, is what it gets alone, whatever the others are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy.typing as npt

from gps_denied_inference.engines.entry import EngineCacheEntry
from gps_denied_inference.runtimes.specs import (
    BuildConfig,
    Model,
    Precision,
    Progress,
    Tensors,
    TensorSpec,
)

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

__all__ = [
    "BuildConfig",
    "EngineCacheEntry",
    "EngineHandle",
    "InferenceRuntime",
    "Model",
    "Progress",
    "Readback",
    "TensorSpec",
    "Tensors",
]


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
    precision: Precision


class EngineHandle:
    """A loaded engine. Opaque: only the runtime that made it may look inside.

    Attributes:
        inputs, outputs: tensor specs, in the engine's order.
        readback: what really runs.
        entry: the cache entry it was loaded from.
        load_time: s, deserialise and warm-up together.
        released: True once the runtime gave everything back.
        running_since: monotonic s at which the forward pass that runs now began; None = none runs.
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
        self.running_since: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Note for a watchdog that a forward pass runs; whoever calls ``infer`` does."""
        self.running_since = time.monotonic()
        try:
            yield
        finally:
            self.running_since = None

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
