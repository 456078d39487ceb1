"""PyTorch: eager FP16 on a CUDA GPU, and the FP32 reference on the CPU.

In FP16 it is what the other GPU runtimes are compared with: no graph is exported and no builder
rewrites anything. In FP32 it is the numerical reference itself. Each precision has a label of its
own, ``"pytorch_fp16"`` and ``"pytorch_fp32"``, so that nobody takes one for the other.

There is nothing to compile. ``compile_engine`` copies the checkpoint into the engine cache, so
that the gate can vouch for it; the checkpoint is only ever read as weights, never as a pickle
that may run code. torch is imported when a runtime is made, not when this module is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.engines.gate import RunningMachine, VerifiedEngine
from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    EngineBuildError,
    EngineLoadError,
    GpsDeniedInferenceError,
    InferenceError,
    InvalidParameterError,
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
    ReadbackMismatchError,
    RuntimeUnavailableError,
)
from gps_denied_inference.runtimes.checks import check_config, parse_device
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    Model,
    Progress,
    Readback,
)
from gps_denied_inference.runtimes.engine_runtime import EngineRuntime, Specs
from gps_denied_inference.runtimes.specs import Precision, engine_tensors

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.pytorch.engine import TorchEngine

_HINT = "python3 -m pip install torch"
_CUDA_HINT = (
    "install a CUDA build of PyTorch (https://pytorch.org/get-started) and the NVIDIA driver, or"
    " choose runtime:=onnxruntime device:=cpu"
)


_DEVICE_KINDS = {"fp16": "cuda", "fp32": "cpu"}
"""Where each precision runs."""


class PytorchRuntime(EngineRuntime):
    """Runtime ``"pytorch"``.

    Args:
        precision: ``"fp32"`` on the CPU, or ``"fp16"`` on a CUDA GPU, replayed as a CUDA graph
            where ``BuildConfig.cuda_graph`` says so.
        shared: as :class:`EngineRuntime` takes them.

    Raises:
        InvalidParameterError: no such precision.
        RuntimeUnavailableError: torch cannot be imported.
    """

    def __init__(self, precision: Precision = "fp32", **shared: Any) -> None:
        super().__init__(**shared)
        if precision not in _DEVICE_KINDS:
            raise InvalidParameterError("precision", precision, "'fp32' or 'fp16'")
        self.precision = precision
        self.device_kind = _DEVICE_KINDS[precision]
        self.label = f"pytorch_{precision}"
        try:
            self._torch = importlib.import_module("gps_denied_inference.runtimes.pytorch.engine")
        except (ImportError, OSError) as error:
            raise RuntimeUnavailableError(
                f"runtime '{self.label}' needs PyTorch, which cannot be imported ({error})", _HINT
            ) from error

    def running_machine(self, config: BuildConfig) -> RunningMachine:
        """Return what this runtime would run an engine on.

        Raises:
            InvalidParameterError: a device or precision that this runtime does not have.
            RuntimeUnavailableError: PyTorch does not see the device.
        """
        name, capability = self._device_facts(config)
        return RunningMachine(self.label, self._torch.VERSION, capability, name, config.precision)

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """Record the checkpoint in the engine cache; nothing is compiled.

        Raises:
            RuntimeUnavailableError, InvalidParameterError: see :meth:`running_machine`.
            ModelNotFoundError: the checkpoint is not on disk.
            ModelIntegrityError: it is not the pinned one.
        """
        machine = self.running_machine(config)
        if model.weights_sha256 and (model.weights is None or not model.weights.is_file()):
            raise ModelNotFoundError(
                f"the weights of model '{model.name}' are not on disk"
                f" ({model.weights or 'no path is known'}): run 'gdi models fetch {model.name}'"
            )

        def record(destination: Path, report: Progress) -> Specs:
            specs = engine_tensors(model, config)
            if specs is None:
                raise EngineBuildError(f"no engine is laid down for a '{model.kind}'")
            report(0.0, f"recording the weights of {model.name}")
            weights = b"" if model.weights is None else model.weights.read_bytes()
            digest = hashlib.sha256(weights).hexdigest()
            if model.weights_sha256 and digest != model.weights_sha256:
                raise ModelIntegrityError(
                    f"{model.weights} has SHA-256 {digest}, pinned is {model.weights_sha256}:"
                    f" run 'gdi models fetch {model.name}'"
                )
            destination.write_bytes(weights)
            return specs

        return self._obtain(model, config, machine, ".pt", record, progress)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Pass the gate, read the weights, move them to the device and warm up.

        Raises:
            EngineRejectedError, RuntimeUnavailableError, ModelMismatchError,
            ModelIntegrityError, DeviceOutOfMemoryError, EngineLoadError, ReadbackMismatchError.
        """
        started = time.perf_counter()
        machine = self.running_machine(entry.config)
        entry, verified = self._gate.admit(entry, machine)
        with self._mapped_load(entry):
            engine = self._load(entry, verified)
        on_gpu = self.device_kind == "cuda"
        readback = Readback(
            runtime=self.label,
            version=self._torch.VERSION,
            provider="cuda_graph" if engine.captured else "eager",
            device=f"{engine.device} {machine.device_name}" if on_gpu else "cpu",
            precision=self.precision,
        )
        return self._handle(engine, readback, entry, started)

    def _check_asked(self, config: BuildConfig) -> int:
        """Refuse what this runtime does not have; return the device's index."""
        check_config(config)
        kind, index = parse_device(config.device)
        if kind != self.device_kind:
            bound = "'cpu'" if self.device_kind == "cpu" else "'cuda' or 'cuda:N'"
            raise InvalidParameterError(
                "device", config.device, f"{bound} for runtime '{self.label}'"
            )
        if config.precision != self.precision:
            raise InvalidParameterError(
                "precision", config.precision, f"'{self.precision}' for runtime '{self.label}'"
            )
        return index

    def _device_facts(self, config: BuildConfig) -> tuple[str, str]:
        """Return the device's name and compute capability ("" for the CPU)."""
        index = self._check_asked(config)
        if self.device_kind == "cpu":
            return "cpu", ""
        count = self._torch.gpu_count()
        if index < count:
            facts: tuple[str, str] = self._torch.gpu(index)
            return facts
        seen = f"PyTorch {self._torch.VERSION} sees {count or 'no'} CUDA GPU(s)"
        hint = f"choose cuda:0 to cuda:{count - 1}" if count else _CUDA_HINT
        raise RuntimeUnavailableError(f"{config.device} was asked for, but {seen}", hint)

    def _load(self, entry: EngineCacheEntry, verified: VerifiedEngine) -> TorchEngine:
        config, manifest = entry.config, verified.manifest
        kind, index = parse_device(config.device)
        if kind == "cpu":
            self._torch.set_threads(config.threads)
        engine: TorchEngine = self._torch.TorchEngine(
            self._torch.module_of(entry, verified.data),
            "cpu" if kind == "cpu" else f"cuda:{index}",
            self.precision == "fp16",
            manifest.inputs,
            manifest.outputs,
        )
        misplaced = engine.misplaced()
        if misplaced:
            raise ReadbackMismatchError(
                f"of model '{entry.model.name}', {misplaced}; asked for were"
                f" {engine.dtype} on {engine.device}"
            )
        got = engine.output_types()
        wanted = [(spec.shape, spec.dtype) for spec in manifest.outputs]
        if got != wanted:
            raise EngineLoadError(
                f"architecture '{entry.model.architecture}' returns {got}, laid down for"
                f" a {entry.model.kind} is {wanted}"
            )
        engine.warm_up(config.warmup_iterations)
        if kind == "cuda" and config.cuda_graph:
            engine.capture()
        return engine

    # The one place where vendor exceptions become ours.

    @contextlib.contextmanager
    def _mapped_load(self, entry: EngineCacheEntry) -> Iterator[None]:
        what = f"model '{entry.model.name}' on {entry.config.device}"
        try:
            yield
        except ModelMismatchError as error:
            # The architecture read a private copy; the user knows the original.
            raise _mismatch(entry) from error.__cause__ or error
        except GpsDeniedInferenceError:
            raise
        except Exception as error:
            self._torch.free_after(error)
            if self._torch.is_out_of_memory(error):
                raise DeviceOutOfMemoryError(
                    f"no memory left while loading {what}: release other engines or processes, or"
                    " lower max_keypoints or the image size"
                ) from error
            unreadable = isinstance(error, pickle.UnpicklingError | EOFError | OSError)
            if unreadable or "PytorchStreamReader" in str(error):  # a truncated archive
                raise ModelIntegrityError(
                    f"{entry.artifact} cannot be read as weights ({error}): fetch the model again"
                ) from error
            if isinstance(error, KeyError) or "state_dict" in str(error):
                raise _mismatch(entry) from error
            raise EngineLoadError(f"{what} could not be loaded: {error}") from error

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        self._torch.free_after(error)
        name = handle.entry.model.name
        if self._torch.is_out_of_memory(error):
            return DeviceOutOfMemoryError(
                f"no memory left on {handle.readback.device} while running '{name}': release"
                " other engines or processes"
            )
        return InferenceError(f"the forward pass of '{name}' failed: {error}")

    def _after_release(self) -> None:
        self._torch.free_unused_memory()


def _mismatch(entry: EngineCacheEntry) -> ModelMismatchError:
    return ModelMismatchError(
        f"{entry.model.weights or entry.artifact} holds the weights of another network than"
        f" '{entry.model.architecture}': choose the model that they belong to"
    )


class PytorchFp16Runtime(PytorchRuntime):
    """:class:`PytorchRuntime` in FP16."""

    def __init__(self, **shared: Any) -> None:
        super().__init__("fp16", **shared)
