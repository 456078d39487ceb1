"""What every runtime here does alike: cache and gate, handles, one call at a time, thermal state.

A runtime derives from :class:`EngineRuntime` and adds what only its library can do: where an engine
runs, how it is built, how it is loaded, and what the library's exceptions mean. None of this is
part of the contract, which is ``contract.InferenceRuntime`` alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from gps_denied_inference.engines.cache import POLICIES, CachePolicy, EngineCache, EngineRecipe
from gps_denied_inference.engines.gate import EngineGate, RunningMachine
from gps_denied_inference.errors import (
    GpsDeniedInferenceError,
    InvalidOutputError,
    InvalidParameterError,
)
from gps_denied_inference.models.registry import default_registry
from gps_denied_inference.runtimes.checks import (
    check_handle,
    check_inputs,
    check_owner,
    no_thermal_source,
)
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    Model,
    Progress,
    Readback,
    Tensors,
    TensorSpec,
)

if TYPE_CHECKING:
    from gps_denied_inference.thermal.state import ThermalState

_LOG = logging.getLogger(__name__)

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""Inputs and outputs of an engine."""


class LoadedEngine(Protocol):
    """An engine in memory, as a runtime keeps it in its handles.

    Attributes:
        lock: held by whoever runs or closes the engine.
    """

    lock: threading.Lock

    def run(self, arrays: list[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """Run one forward pass: inputs and outputs in the engine's order. May raise anything."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class EngineRuntime:
    """Base of the runtimes.

    Args:
        cache, gate: where engines lie and who checks them; defaults as documented there.
        policy: one of ``engines.cache.POLICIES``.
        thermal_source: returns the newest thermal state.
        per_frame_debug_log: log every forward pass's latency at DEBUG.

    Raises:
        InvalidParameterError: no such policy.
    """

    label: str
    """Name in the registry."""
    build_options: tuple[str, ...] = ()
    """Names in ``BuildConfig.options`` that this runtime reads, beside the architecture's own."""

    def __init__(
        self,
        *,
        cache: EngineCache | None = None,
        gate: EngineGate | None = None,
        policy: CachePolicy = "build_if_needed",
        thermal_source: Callable[[], ThermalState] | None = None,
        per_frame_debug_log: bool = False,
    ) -> None:
        if policy not in POLICIES:
            raise InvalidParameterError("policy", policy, "one of " + ", ".join(POLICIES))
        self._cache = cache or EngineCache()
        self._gate = gate or EngineGate()
        self._policy = policy
        self._thermal_source = thermal_source or no_thermal_source
        self._debug = per_frame_debug_log

    def _obtain(
        self,
        model: Model,
        config: BuildConfig,
        machine: RunningMachine,
        suffix: str,
        build: Callable[[Path, Progress], Specs],
        progress: Progress | None,
        builder_flags: Mapping[str, str] | None = None,
    ) -> EngineCacheEntry:
        """Find the engine in the cache, or let ``build`` write it there. Raises as it does.

        Raises:
            also InvalidParameterError: an option that neither runtime nor architecture reads.
        """
        self._check_options(model, config)
        recipe = EngineRecipe(
            runtime_id=machine.runtime_id,
            runtime_version=machine.runtime_version,
            compute_capability=machine.compute_capability,
            device_name=machine.device_name,
            precision=machine.precision,
            suffix=suffix,
            build=build,
            builder_flags=builder_flags or {},
        )
        return self._cache.obtain(model, config, recipe, progress, self._policy, self._gate)

    def _check_options(self, model: Model, config: BuildConfig) -> None:
        known = set(self.build_options)
        if model.architecture in default_registry:
            known.update(default_registry.get(model.architecture).options)
            if config.batch > 1 and not default_registry.get(model.architecture).batches:
                raise InvalidParameterError(
                    "batch", config.batch, f"1 for model '{model.name}': it takes one at a time"
                )
        for name in sorted(set(config.options) - known):
            raise InvalidParameterError(
                f"option {name}",
                config.options[name],
                f"one of {', '.join(sorted(known)) or 'no options at all'} for model "
                f"'{model.name}' on runtime '{self.label}'",
            )

    def _handle(
        self, engine: LoadedEngine, readback: Readback, entry: EngineCacheEntry, started: float
    ) -> EngineHandle:
        """Return a handle on an engine whose loading began at ``started`` (``perf_counter``)."""
        manifest, took = entry.manifest, time.perf_counter() - started
        return EngineHandle(self, engine, manifest.inputs, manifest.outputs, readback, entry, took)

    def infer(self, handle: EngineHandle, inputs: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Run one forward pass; calls on one handle wait for one another.

        Raises:
            InvalidHandleError, InputMismatchError, InferenceError, DeviceOutOfMemoryError.
        """
        engine: LoadedEngine = check_handle(handle, self)
        arrays = check_inputs(handle.inputs, inputs)
        with engine.lock:
            check_handle(handle, self)  # it may have been released while this call waited
            started = time.perf_counter()
            try:
                results = engine.run(arrays)
            except GpsDeniedInferenceError:
                raise
            except Exception as error:
                raise self._explain(handle, error) from error
            elapsed = time.perf_counter() - started
        if self._debug:
            _LOG.debug("%s %s: %.3f ms", self.label, handle.entry.model.name, elapsed * 1e3)
        if len(results) != len(handle.outputs):
            raise InvalidOutputError(
                f"{handle!r} answered with {len(results)} tensors instead of {len(handle.outputs)}"
            )
        return {spec.name: value for spec, value in zip(handle.outputs, results, strict=True)}

    def release_engine(self, handle: EngineHandle) -> None:
        """Free all that the engine holds; twice is fine.

        Raises:
            InvalidHandleError: the handle is another runtime's.
        """
        check_owner(handle, self)
        engine: LoadedEngine | None = handle._payload
        if engine is None:
            return
        with engine.lock:
            if handle.released:
                return
            handle.released = True
            handle._payload = None
            engine.close()
        del engine
        self._after_release()

    def thermal_state(self) -> ThermalState:
        """Return the newest thermal state, UNKNOWN where no source is attached."""
        return self._thermal_source()

    def current_runtime_label(self) -> str:
        """Return the registry name of this runtime."""
        return self.label

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        """Return what an exception of the library's forward pass means."""
        raise NotImplementedError

    def _after_release(self) -> None:
        """Do what remains once no handle refers to the engine."""
