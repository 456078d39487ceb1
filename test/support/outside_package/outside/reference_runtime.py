"""A runtime that runs static graphs with ONNX's own reference evaluator: slow, and exact."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator

from gps_denied_inference.engines.gate import RunningMachine
from gps_denied_inference.errors import GpsDeniedInferenceError, InferenceError
from gps_denied_inference.models.specialise import specialise
from gps_denied_inference.runtimes.checks import check_config
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    Model,
    Progress,
    Readback,
)
from gps_denied_inference.runtimes.engine_runtime import EngineRuntime, Specs


class ReferenceRuntime(EngineRuntime):
    """Runtime ``"onnx_reference"``."""

    label = "onnx_reference"

    def running_machine(self, config: BuildConfig) -> RunningMachine:
        """Return what an engine would run on."""
        return RunningMachine(self.label, onnx.__version__, "", "cpu", config.precision)

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """Fix the graph."""
        check_config(config)

        def build(path: Path, report: Progress) -> Specs:
            return specialise(model, config, path)

        return self._obtain(model, config, self.running_machine(config), ".onnx", build, progress)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Pass the gate and load."""
        started = time.perf_counter()
        machine = self.running_machine(entry.config)
        entry, verified = self._gate.admit(entry, machine)
        engine = _Engine(verified.data)
        back = Readback(self.label, onnx.__version__, "reference", "cpu", entry.config.precision)
        inputs, outputs = verified.manifest.inputs, verified.manifest.outputs
        engine.run([spec.zeros() for spec in inputs])
        elapsed = time.perf_counter() - started
        return EngineHandle(self, engine, inputs, outputs, back, entry, elapsed)

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        return InferenceError(f"the reference evaluator failed: {error}")


class _Engine:
    def __init__(self, data: bytes) -> None:
        self.lock = threading.Lock()
        self._evaluator = ReferenceEvaluator(onnx.load_model_from_string(data))

    def run(self, arrays: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        feed = dict(zip(self._evaluator.input_names, arrays, strict=True))
        return list(self._evaluator.run(None, feed))

    def close(self) -> None:
        del self._evaluator
