"""ONNX Runtime on the CPU, on CUDA, and with its TensorRT provider.

The engine is the model's graph with everything fixed (``engines.graph``), as one ONNX file; with
the TensorRT provider it is an ONNX file that holds the provider's engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import onnx

from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.gate import RunningMachine, VerifiedEngine
from gps_denied_inference.errors import (
    EngineLoadError,
    EngineRejectedError,
    GpsDeniedInferenceError,
    InferenceError,
    InvalidParameterError,
    ModelNotFoundError,
    ReadbackMismatchError,
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
from gps_denied_inference.runtimes.onnx_runtime.session import (
    PROVIDERS,
    ConvSearch,
    OrtSession,
    SessionSettings,
    build_tensorrt_context,
    library_version,
    map_error,
    require_provider,
)
from gps_denied_inference.runtimes.specs import Precision

Specialise = Callable[[Model, BuildConfig, Path], Specs]


class OrtRuntime(EngineRuntime):
    """Runtime ``"onnxruntime"``.

    The provider follows from ``BuildConfig.device``: ``"cpu"`` or ``"cuda"``. The TensorRT
    provider is taken only where it is asked for, by ``provider="tensorrt"`` here or in
    ``BuildConfig.options``. FP16 needs a GPU: on the CPU the library would compute in FP32.

    Args:
        provider: ``"cpu"``, ``"cuda"`` or ``"tensorrt"``; None = by device.
        conv_search: see ``ort_session.SessionSettings``.
        spinning: see there.
        gpu_memory_limit: bytes, see there.
        specialise: makes the static graph; None = ``engines.graph.specialise``.
        shared: ``cache``, ``gate`` and the others of :class:`EngineRuntime`.

    Raises:
        InvalidParameterError: an option is refused.
    """

    label = "onnxruntime"
    build_options = ("provider",)

    def __init__(
        self,
        *,
        provider: str | None = None,
        conv_search: ConvSearch = "exhaustive",
        spinning: bool = True,
        gpu_memory_limit: int = 0,
        specialise: Specialise | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if provider is not None and provider not in PROVIDERS:
            raise InvalidParameterError("provider", provider, "one of " + ", ".join(PROVIDERS))
        if conv_search not in get_args(ConvSearch):
            raise InvalidParameterError(
                "conv_search", conv_search, "one of " + ", ".join(get_args(ConvSearch))
            )
        if gpu_memory_limit < 0:
            raise InvalidParameterError("gpu_memory_limit", gpu_memory_limit, "0 or more bytes")
        self._provider = provider
        self._conv_search = conv_search
        self._spinning = spinning
        self._gpu_memory_limit = gpu_memory_limit
        self._specialise = specialise

    def running_machine(self, config: BuildConfig) -> RunningMachine:
        """Return what this runtime would run an engine on.

        Raises:
            InvalidParameterError: device, provider and precision do not go together.
            RuntimeUnavailableError: this machine has no such provider or GPU.
        """
        settings = self._settings(config)
        require_provider(settings.provider)
        capability, name = "", "cpu"
        if settings.provider != "cpu":
            from gps_denied_inference.runtimes.gpus import survey

            gpu = survey().require(config.device, settings.device_index)
            capability, name = gpu.compute_capability, gpu.name
        return RunningMachine(self.label, library_version(), capability, name, config.precision)

    def compile_engine(
        self, model: Model, config: BuildConfig, progress: Progress | None = None
    ) -> EngineCacheEntry:
        """See ``InferenceRuntime.compile_engine``.

        Raises:
            also InvalidParameterError: the configuration cannot be followed.
        """
        check_config(config)
        machine = self.running_machine(config)
        settings = self._settings(config)
        if model.graph is None or not model.graph.is_file():
            raise ModelNotFoundError(
                f"model '{model.name}' has no ONNX graph on disk, and onnxruntime runs nothing "
                f"else: make it with 'gdi models fetch {model.name}' and "
                f"'gdi models export {model.name}'"
            )

        def build(path: Path, report: Progress) -> Specs:
            report(0.0, f"fixing the graph of {model.name}")
            if settings.provider != "tensorrt":
                return self._specialised(model, config, path)
            source = path.with_name("source.onnx")
            specs = self._specialised(model, config, source)
            report(0.1, "TensorRT provider builds its engine")
            build_tensorrt_context(source, path, settings)
            source.unlink()
            return specs

        flags = {"provider": settings.provider}
        return self._obtain(model, config, machine, ".onnx", build, progress, flags)

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """See ``InferenceRuntime.deserialize_engine``."""
        started = time.perf_counter()
        config = entry.config
        check_config(config)
        settings = self._settings(config)
        machine = self.running_machine(config)
        entry, verified = self._gate.admit(entry, machine)
        built_for = verified.manifest.builder_flags.get("provider")
        if built_for != settings.provider:
            raise EngineRejectedError(
                f"engine {entry.artifact} refused: built for provider '{built_for}', "
                f"asked for '{settings.provider}'",
                [reasons.CONFIG],
            )
        precision = _precision(verified, settings)
        manifest = verified.manifest
        session = OrtSession(verified.data, settings, manifest.inputs, manifest.outputs)
        try:
            zeros = [spec.zeros() for spec in manifest.inputs]
            # The first pass captures the CUDA graph: that belongs to loading.
            for _ in range(max(config.warmup_iterations, 1 if settings.cuda_graph else 0)):
                session.run(zeros)
        except Exception as error:
            session.close()
            raise map_error(error, "warm up the engine", settings) from error
        device = "cpu"
        if settings.provider != "cpu":
            device = f"cuda:{settings.device_index} {machine.device_name}"
        readback = Readback(self.label, library_version(), session.provider, device, precision)
        return self._handle(session, readback, entry, started)

    def _explain(self, handle: EngineHandle, error: Exception) -> GpsDeniedInferenceError:
        settings = self._settings(handle.entry.config)
        return map_error(error, "run the engine", settings, InferenceError)

    def _specialised(self, model: Model, config: BuildConfig, path: Path) -> Specs:
        if self._specialise is not None:
            return self._specialise(model, config, path)
        from gps_denied_inference.models.specialise import specialise

        return specialise(model, config, path)

    def _settings(self, config: BuildConfig) -> SessionSettings:
        kind, index = parse_device(config.device)
        provider = config.options.get("provider", self._provider) or kind
        if provider not in PROVIDERS:
            raise InvalidParameterError("provider", provider, "one of " + ", ".join(PROVIDERS))
        if (provider == "cpu") != (kind == "cpu"):
            raise InvalidParameterError(
                "provider", provider, f"one that runs on device '{config.device}'"
            )
        if kind == "cpu" and config.precision != "fp32":
            raise InvalidParameterError(
                "precision",
                config.precision,
                "'fp32' on the CPU, where ONNX Runtime computes nothing in half precision",
            )
        return SessionSettings(
            provider=provider,
            device_index=index,
            precision=config.precision,
            threads=config.threads,
            cuda_graph=config.cuda_graph and kind == "cuda",
            spinning=self._spinning,
            conv_search=self._conv_search,
            gpu_memory_limit=self._gpu_memory_limit,
        )


def _precision(verified: VerifiedEngine, settings: SessionSettings) -> Precision:
    """Return the precision of the graph itself, after comparing it with what was asked."""
    if settings.provider == "tensorrt":  # the graph is one opaque node
        return settings.precision
    try:
        graph = onnx.load_model_from_string(verified.data).graph
    except Exception as error:
        raise EngineLoadError(f"{verified.artifact} is no ONNX graph: {error}") from error
    kind = onnx.TensorProto.FLOAT16
    # A network without weights shows it by what it casts to.
    half = any(item.data_type == kind for item in graph.initializer) or any(
        node.op_type == "Cast" and node.attribute[0].i == kind for node in graph.node
    )
    found = "fp16" if half else "fp32"
    if found != settings.precision:
        raise ReadbackMismatchError(
            f"{settings.precision} was asked for, but the network in {verified.artifact} is "
            f"{found}: compile it again"
        )
    return found
