"""One loaded ONNX Runtime session. The only module that imports ``onnxruntime``.

On CUDA all inputs and outputs live in buffers that stay where they are: inputs are copied into
them, outputs out of them, and the forward pass can be replayed as a CUDA graph. Nothing falls back
silently: the library's own fallback is off, nodes may not go to the CPU provider, and the first
provider and its device are read back.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import onnxruntime

from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    EngineLoadError,
    GpsDeniedInferenceError,
    ReadbackMismatchError,
    RuntimeUnavailableError,
    UnsupportedDeviceError,
)
from gps_denied_inference.runtimes.contract import TensorSpec
from gps_denied_inference.runtimes.onnx_runtime.device_input import DeviceInput
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.runtimes.specs import Precision

_LOG = logging.getLogger(__name__)

ConvSearch = Literal["exhaustive", "heuristic", "default"]
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
INSTALL_GPU = (
    "install it with 'pip uninstall onnxruntime' and 'pip install onnxruntime-gpu[cuda,cudnn]'"
)
_INSTALL_TENSORRT = "the TensorRT provider also needs the libraries of TensorRT 10 (libnvinfer)"
_OUT_OF_MEMORY = (
    "out of memory",
    "cuda failure 2:",
    "failed to allocate memory",
    "alloc_failed",
    "cudaerrormemoryallocation",
    "bad_alloc",
    "bad allocation",
    "is smaller than requested bytes",
)
_UNSUPPORTED = ("no kernel image is available", "unsupported toolchain", "cuda failure 209:")
_OLD_DRIVER = ("driver version is insufficient", "cuda failure 35:")
_MISSING_LIBRARY = (
    "please install tensorrt libraries",
    "please install cuda",
    "failed to load library",
    "cannot open shared object",
    "failed to create",
)
_CPU_FALLBACK = "fallback to cpu ep has been explicitly disabled"


@dataclass(frozen=True)
class SessionSettings:
    """How a session runs.

    Attributes:
        provider: a key of :data:`PROVIDERS`.
        device_index: N of ``cuda:N``.
        precision: ``"fp32"`` or ``"fp16"``.
        threads: CPU threads within one operator, 0 = the library's default.
        cuda_graph: replay the forward pass as a CUDA graph.
        spinning: let idle CPU threads spin between operators: faster, and a busy core.
        conv_search: how cuDNN's convolutions are chosen while warming up.
        gpu_memory_limit: bytes that the session's arena may take, 0 = no limit.
    """

    provider: str
    device_index: int = 0
    precision: Precision = "fp32"
    threads: int = 0
    cuda_graph: bool = False
    spinning: bool = True
    conv_search: ConvSearch = "exhaustive"
    gpu_memory_limit: int = 0


def library_version() -> str:
    """Return the full version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def require_provider(provider: str) -> None:
    """Refuse a provider that this build of ONNX Runtime does not have.

    Raises:
        RuntimeUnavailableError: says what to install.
    """
    available = onnxruntime.get_available_providers()
    if PROVIDERS[provider] not in available:
        raise RuntimeUnavailableError(
            f"onnxruntime {library_version()} is built without {PROVIDERS[provider]} "
            f"(it has {', '.join(available)})",
            INSTALL_GPU + (f"; {_INSTALL_TENSORRT}" if provider == "tensorrt" else ""),
        )


class OrtSession:
    """A session with its buffers.

    Args:
        data: ONNX model, as it passed the gate.
        settings: how it runs.
        inputs, outputs: what the manifest says the engine takes and gives.

    Attributes:
        provider: the first provider, as read back.
        lock: held by whoever runs or closes the session.

    Raises:
        EngineLoadError, ReadbackMismatchError, UnsupportedDeviceError, RuntimeUnavailableError,
        DeviceOutOfMemoryError.
    """

    def __init__(
        self,
        data: bytes,
        settings: SessionSettings,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.lock = threading.Lock()
        self._settings = settings
        self._inputs = inputs
        self._output_names = [spec.name for spec in outputs]
        self._binding: Any = None
        self._device_inputs: list[DeviceInput] = []
        self._output_values: list[Any] = []
        self._session: Any = None
        self._thread = SerialThread("onnxruntime engine") if settings.cuda_graph else None
        self.provider = ""
        try:
            self._session = _create(data, settings, {})
            self.provider = _read_back(self._session, settings)
            _compare_tensors("inputs", inputs, self._session.get_inputs())
            _compare_tensors("outputs", outputs, self._session.get_outputs())
            if settings.provider != "cpu":
                self._bind(inputs, outputs)
        except GpsDeniedInferenceError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise map_error(error, "load the engine", settings) from error

    def run(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one forward pass. Vendor exceptions pass through: see :func:`map_error`."""
        if self._thread is not None:
            return self._thread.call(self._run, arrays)
        return self._run(arrays)

    def close(self) -> None:
        """Give back the session, its buffers, its arena and its thread."""
        if self._thread is None:
            self._release()
            return
        self._thread.call(self._release)
        self._thread.close()
        self._thread = None

    def _run(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if self._binding is None:
            feed = {spec.name: array for spec, array in zip(self._inputs, arrays, strict=True)}
            return list(self._session.run(self._output_names, feed))
        for value, array in zip(self._device_inputs, arrays, strict=True):
            value.update(array)
        self._session.run_with_iobinding(self._binding)
        return [value.numpy() for value in self._output_values]

    def _release(self) -> None:
        if self._binding is not None:
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
        # The binding refers to the session and to the values: they go in this order, and the
        # collector takes what cycles would keep alive.
        self._binding = None
        self._device_inputs.clear()
        self._output_values.clear()
        self._session = None
        gc.collect()

    def _bind(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        index = self._settings.device_index
        self._binding = self._session.io_binding()
        for spec in inputs:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(spec.zeros(), "cuda", index)
            self._binding.bind_ortvalue_input(spec.name, value)
            self._device_inputs.append(DeviceInput(value, spec.zeros()))
        for spec in outputs:
            value = onnxruntime.OrtValue.ortvalue_from_numpy(spec.zeros(), "cuda", index)
            self._binding.bind_ortvalue_output(spec.name, value)
            self._output_values.append(value)


def build_tensorrt_context(source: Path, destination: Path, settings: SessionSettings) -> None:
    """Let the TensorRT provider build its engine and store it inside one ONNX file.

    The engine is embedded, so that the gate's hash covers it; the provider's own cache folder
    would be deserialised unchecked.

    Raises:
        as :class:`OrtSession`; EngineLoadError where the provider took no part of the graph.
    """
    entries = {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "1",
        "ep.context_file_path": str(destination),
    }
    session = _create(source.read_bytes(), settings, entries)
    try:
        _read_back(session, settings)
    finally:
        del session
        gc.collect()
    if not destination.is_file():
        raise EngineLoadError(
            "the TensorRT provider built no engine of this graph: use provider 'cuda'"
        )


def map_error(
    error: Exception,
    doing: str,
    settings: SessionSettings,
    otherwise: type[GpsDeniedInferenceError] = EngineLoadError,
) -> GpsDeniedInferenceError:
    """Return this package's exception for one that ONNX Runtime raised.

    Args:
        error: what was raised; the caller keeps it as ``__cause__``.
        doing: what failed, e.g. ``"load the engine"``.
        settings: of the session.
        otherwise: class where nothing more is known.
    """
    text = " ".join(str(error).split())
    lowered = text.lower()
    provider = PROVIDERS[settings.provider]
    if isinstance(error, MemoryError) or any(sign in lowered for sign in _OUT_OF_MEMORY):
        device = "the CPU" if settings.provider == "cpu" else f"cuda:{settings.device_index}"
        return DeviceOutOfMemoryError(
            f"could not {doing}: {device} has no memory left; release other engines or choose a "
            f"smaller image or fewer keypoints ({text})"
        )
    if any(sign in lowered for sign in _UNSUPPORTED):
        return UnsupportedDeviceError(
            f"could not {doing}: this build of onnxruntime {library_version()} has no code for "
            f"the GPU cuda:{settings.device_index} ({text})"
        )
    if any(sign in lowered for sign in _OLD_DRIVER):
        return RuntimeUnavailableError(
            f"could not {doing}: the NVIDIA driver is too old ({text})", "install a newer driver"
        )
    if settings.provider != "cpu" and any(sign in lowered for sign in _MISSING_LIBRARY):
        return RuntimeUnavailableError(
            f"could not {doing}: {provider} does not start ({text})", _advice(settings)
        )
    if _CPU_FALLBACK in lowered:
        return ReadbackMismatchError(
            f"{provider} was asked for, but the graph or parts of it would run on the CPU: its "
            f"libraries did not load, or it cannot run every node; {_advice(settings)}"
        )
    return otherwise(f"{provider} could not {doing}: {text}")


def _create(data: bytes, settings: SessionSettings, entries: dict[str, str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings about node placement say nothing new
    options.intra_op_num_threads = settings.threads
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if settings.spinning else "0"
    )
    # Between operators idle threads may spin, after the pass they must not: the next engine of the
    # same frame, the matcher, needs their cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.provider != "cpu":
        _preload()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    try:
        return onnxruntime.InferenceSession(
            data,
            sess_options=options,
            providers=_providers(settings),
            enable_fallback=0,
        )
    except Exception as error:
        raise map_error(error, "load the engine", settings) from error


def _providers(settings: SessionSettings) -> list[tuple[str, dict[str, str]]]:
    if settings.provider == "cpu":
        return [(PROVIDERS["cpu"], {})]
    index, graph = str(settings.device_index), "1" if settings.cuda_graph else "0"
    cuda = {
        "device_id": index,
        "enable_cuda_graph": graph if settings.provider == "cuda" else "0",
        "cudnn_conv_algo_search": settings.conv_search.upper(),
        # TF32 would make "fp32" something else on Ampere and newer. The same switch also keeps
        # FP16 convolutions off the tensor cores, so it is off for fp32 only.
        "use_tf32": "1" if settings.precision == "fp16" else "0",
        # Tensor cores want channels last; XFeat on an H100: 0.65 ms instead of 0.84 ms.
        "prefer_nhwc": "1" if settings.precision == "fp16" else "0",
        "arena_extend_strategy": "kSameAsRequested",
    }
    if settings.gpu_memory_limit:
        cuda["gpu_mem_limit"] = str(settings.gpu_memory_limit)
    providers = [(PROVIDERS["cuda"], cuda)]
    if settings.provider == "tensorrt":
        tensorrt = {
            "device_id": index,
            "trt_fp16_enable": "1" if settings.precision == "fp16" else "0",
            "trt_cuda_graph_enable": graph,
        }
        providers.insert(0, (PROVIDERS["tensorrt"], tensorrt))
    return providers


def _read_back(session: Any, settings: SessionSettings) -> str:
    """Return the provider that runs, after comparing it and its device with what was asked."""
    wanted = PROVIDERS[settings.provider]
    running = str(session.get_providers()[0])
    if running != wanted:
        raise ReadbackMismatchError(
            f"{wanted} was asked for, but {running} runs; {_advice(settings)}"
        )
    if settings.provider != "cpu":
        options = session.get_provider_options().get(running, {})
        index = options.get("device_id", str(settings.device_index))
        if index != str(settings.device_index):
            raise ReadbackMismatchError(
                f"cuda:{settings.device_index} was asked for, but cuda:{index} runs"
            )
    return running


def _advice(settings: SessionSettings) -> str:
    """Return what to install, and what did not load here."""
    advice = INSTALL_GPU
    if settings.provider == "tensorrt":
        advice += f"; {_INSTALL_TENSORRT}"
    missing = _preload()
    return f"{advice} ({missing})" if missing else advice


@functools.cache
def _preload() -> str:
    """Load CUDA's and cuDNN's libraries from their wheels; return what failed, in one line."""
    preload = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if preload is None or not hasattr(onnxruntime, "cuda_version"):
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        preload()
    report = "; ".join(line.strip() for line in printed.getvalue().splitlines() if line.strip())
    if report:
        _LOG.warning("onnxruntime could not load all CUDA libraries: %s", report)
    return report


def _compare_tensors(side: str, wanted: tuple[TensorSpec, ...], found: Sequence[Any]) -> None:
    types = {"float32": "float", "float64": "double", "float16": "float16"}
    expected = {
        (spec.name, spec.shape, f"tensor({types.get(spec.dtype, spec.dtype)})") for spec in wanted
    }
    actual = {(item.name, tuple(item.shape), item.type) for item in found}
    if expected != actual:
        raise EngineLoadError(
            f"the engine's {side} are {sorted(actual, key=str)}, its manifest says "
            f"{sorted(expected, key=str)}: compile it again"
        )
