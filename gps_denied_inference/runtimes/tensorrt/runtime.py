"""TensorRT: one runtime for ``tensorrt`` 10.x (Jetson), 11.x (x86) and ``tensorrt_rtx``.

Engines are built from the model's static ONNX graph. ``tensorrt`` builds on the GPU that the engine
is for. ``tensorrt_rtx`` also builds without a GPU, for one named by the option
``compute_capability``; what it builds runs on every GPU of that compute capability.

Options of ``BuildConfig.options``: ``compute_capability`` (e.g. ``"8.9"``, TensorRT for RTX only),
``optimization_level`` (0..5), ``workspace_mib`` (scratch memory at most).

Deserialising an engine runs native code from the file: the gate decides first, and what it hashed
is what is loaded.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from gps_denied_inference.engines.gate import RunningMachine
from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    EngineLoadError,
    GpsDeniedInferenceError,
    InferenceError,
    InvalidParameterError,
    RuntimeUnavailableError,
    UnsupportedDeviceError,
)
from gps_denied_inference.models.specialise import specialise
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
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey, survey
from gps_denied_inference.runtimes.tensorrt.builder import BuildPlan, build_engine
from gps_denied_inference.runtimes.tensorrt.cuda_memory import Cuda, CudaError
from gps_denied_inference.runtimes.tensorrt.engine import CudaFactory, RefusedByLibrary, TrtEngine
from gps_denied_inference.runtimes.tensorrt.probe import (
    RTX_COMPUTE_CAPABILITIES,
    TENSORRT_LIBRARIES,
    find_tensorrt,
)

_HINT = "python3 -m pip install tensorrt (or tensorrt-rtx) cuda-python; on Jetson use JetPack's"


class TensorrtRuntime(EngineRuntime):
    """Runtime ``"tensorrt"``.

    Args:
        library: ``"tensorrt"``, ``"tensorrt_rtx"``, or ``"auto"`` for the first that is there.
        module, gpus, cuda: replace the library, the GPUs and the CUDA calls in tests.
        shared: ``cache``, ``gate`` and the others of :class:`EngineRuntime`.

    Raises:
        RuntimeUnavailableError: neither library can be imported.
    """

    label = "tensorrt"
    build_options = ("compute_capability", "optimization_level", "workspace_mib")

    def __init__(
        self,
        *,
        library: str = "auto",
        module: ModuleType | None = None,
        gpus: GpuSurvey | None = None,
        cuda: CudaFactory = Cuda,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if library not in ("auto", *TENSORRT_LIBRARIES):
            bound = "'auto', " + " or ".join(repr(name) for name in TENSORRT_LIBRARIES)
            raise InvalidParameterError("library", library, bound)
        found = module or find_tensorrt(library=library)
        if found is None:
            missing = " and ".join(TENSORRT_LIBRARIES) if library == "auto" else library
            raise RuntimeUnavailableError(f"cannot import {missing}", _HINT)
        self._library: Any = found
        self._gpus = gpus if gpus is not None else survey()
        self._cuda = cuda

    @property
    def _is_rtx(self) -> bool:
        return str(self._library.__name__) == "tensorrt_rtx"

    @property
    def _version(self) -> str:
        return f"{self._library.__name__} {self._library.__version__}"

    def running_machine(self, config: BuildConfig) -> RunningMachine:
        """Return what this runtime would run an engine on.

        Without a GPU this is the machine that an engine of ``config`` is for, so that engines can
        be checked where they are built; they do not load there.

        Raises:
            InvalidParameterError: a device or option that this runtime does not have.
            RuntimeUnavailableError: no GPU, and the options name none.
        """
        gpu = self._gpu(config)
        if gpu is None:
            return self._target(config)
        return self._describe(config, gpu.compute_capability, gpu.name)

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """Build the engine, or find it in the cache; seconds to minutes.

        Raises:
            RuntimeUnavailableError: no GPU to build for.
            UnsupportedDeviceError: the library builds nothing for this GPU.
            InvalidParameterError: a device, option or size out of bounds.
            ModelError, StorageError, EngineBuildError, EngineRejectedError,
            DeviceOutOfMemoryError.
        """
        machine = self._target(config)
        if self._is_rtx and machine.compute_capability not in RTX_COMPUTE_CAPABILITIES:
            raise self._unsupported(machine.compute_capability)
        options = config.options
        plan = BuildPlan(
            half=config.precision == "fp16",
            compute_capability=machine.compute_capability if self._is_rtx else "",
            optimization_level=_number(options, "optimization_level", 0, 5),
            workspace=(_number(options, "workspace_mib", 1, 1 << 20) or 0) << 20,
            # TensorRT for RTX times nothing when it builds: it tunes on the user's machine.
            timing_cache=None if self._is_rtx else self._timing_cache(machine),
        )

        def build(destination: Path, report: Progress) -> Specs:
            with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
                graph = Path(folder) / "graph.onnx"
                specs = specialise(model, config, graph)
                build_engine(self._library, graph.read_bytes(), destination, plan, report)
            return specs

        flags = {"strongly_typed": "true"}
        return self._obtain(model, config, machine, ".engine", build, progress, flags)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Pass the gate, deserialise, take buffers, warm up and capture.

        Raises:
            EngineRejectedError: the gate refused it.
            UnsupportedDeviceError: no GPU, or the library does not run this engine on this GPU.
            RuntimeUnavailableError: cuda-python is missing.
            EngineLoadError, DeviceOutOfMemoryError.
        """
        started = time.perf_counter()
        config = entry.config
        machine = self.running_machine(config)
        entry, verified = self._gate.admit(entry, machine)
        gpu = self._gpu(config)
        if gpu is None:
            raise UnsupportedDeviceError(
                f"engine {entry.artifact} is for a GPU of compute capability"
                f" {machine.compute_capability} and cannot be loaded here: {self._gpus.reason}"
            )
        manifest = verified.manifest
        with self._mapped_load(entry, gpu):
            engine = TrtEngine(
                self._library,
                verified.data,
                manifest.inputs,
                manifest.outputs,
                gpu.index,
                self._cuda,
            )
            try:
                engine.warm_up(config.warmup_iterations)
                if config.cuda_graph:
                    engine.capture()
            except BaseException:
                with contextlib.suppress(CudaError):  # the first failure is the one to tell
                    engine.close()
                raise
        readback = Readback(
            runtime="tensorrt",
            version=self._version,
            provider=self._library.__name__ + (" cuda_graph" if engine.captured else ""),
            device=f"cuda:{gpu.index} {gpu.name}",
            precision=manifest.precision,
        )
        return self._handle(engine, readback, entry, started)

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        name = handle.entry.model.name
        if _is_out_of_memory(error):
            return DeviceOutOfMemoryError(
                f"no memory left on {handle.readback.device} while running '{name}'"
            )
        return InferenceError(f"the forward pass of '{name}' failed: {error}")

    def _gpu(self, config: BuildConfig) -> Gpu | None:
        """Return the GPU that is asked for, None where there is no GPU at all."""
        check_config(config)
        kind, index = parse_device(config.device)
        if kind == "cpu":
            raise InvalidParameterError(
                "device", config.device, "'cuda' or 'cuda:N' for runtime 'tensorrt'"
            )
        return self._gpus.require(config.device, index) if self._gpus.gpus else None

    def _target(self, config: BuildConfig) -> RunningMachine:
        """Return the machine that an engine of ``config`` is built for."""
        gpu = self._gpu(config)
        named = config.options.get("compute_capability", "")
        here = "" if gpu is None else gpu.compute_capability
        if named and not self._is_rtx and named != here:
            raise InvalidParameterError(
                "compute_capability", named, "left out: only tensorrt_rtx builds for another GPU"
            )
        if not named and gpu is None:
            hint = "build on the machine that flies"
            if self._is_rtx:
                hint += ", or name its GPU: gdi compile --compute-capability 8.9"
            raise RuntimeUnavailableError(
                f"there is no GPU to build an engine for: {self._gpus.reason}", hint
            )
        return self._describe(config, named or here, "" if gpu is None else gpu.name)

    def _describe(self, config: BuildConfig, capability: str, name: str) -> RunningMachine:
        if self._is_rtx:  # its engines run on every GPU of one compute capability
            name = f"GPU of compute capability {capability}"
        return RunningMachine("tensorrt", self._version, capability, name, config.precision)

    def _timing_cache(self, machine: RunningMachine) -> Path:
        name = f"{machine.runtime_version}-sm{machine.compute_capability}".replace(" ", "-")
        return self._cache.root / ".timing" / f"{name}.cache"

    def _unsupported(self, capability: str) -> UnsupportedDeviceError:
        return UnsupportedDeviceError(
            f"TensorRT for RTX ({self._version}) does not run on compute capability"
            f" {capability}, only on {', '.join(RTX_COMPUTE_CAPABILITIES)}: use tensorrt, or"
            " runtime:=onnxruntime device:=cuda"
        )

    @contextlib.contextmanager
    def _mapped_load(self, entry: EngineCacheEntry, gpu: Gpu) -> Iterator[None]:
        """Turn what loading raises into our errors."""
        try:
            yield
        except RefusedByLibrary as error:
            if self._is_rtx and gpu.compute_capability not in RTX_COMPUTE_CAPABILITIES:
                raise self._unsupported(gpu.compute_capability) from error
            if _is_out_of_memory(error):
                raise self._no_memory(entry, gpu) from error
            raise UnsupportedDeviceError(
                f"{self._version} gave no engine for {entry.artifact} on {gpu.name} (compute"
                f" capability {gpu.compute_capability}): {error}; compile it anew here; if it"
                " was compiled here, update the NVIDIA driver"
            ) from error
        except GpsDeniedInferenceError:
            raise
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold device memory
            if _is_out_of_memory(error):
                raise self._no_memory(entry, gpu) from error
            raise EngineLoadError(f"engine {entry.artifact} did not load: {error}") from error

    @staticmethod
    def _no_memory(entry: EngineCacheEntry, gpu: Gpu) -> DeviceOutOfMemoryError:
        return DeviceOutOfMemoryError(
            f"no memory left on cuda:{gpu.index} {gpu.name} while loading {entry.artifact}:"
            " release other engines or processes"
        )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, CudaError):
        return error.out_of_memory
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "outofmemory" in text


def _number(options: Any, name: str, low: int, high: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise InvalidParameterError(name, text, f"a whole number in {low}..{high}")
    return value
