"""ONNX graph to TensorRT engine, with any of ``tensorrt`` 10.x, 11.x and ``tensorrt_rtx``.

The library comes in as an argument: what is written here holds for all three. The network is
strongly typed, so that the graph alone says what runs in float16 and no builder decides otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import DeviceOutOfMemoryError, EngineBuildError
from gps_denied_inference.runtimes.contract import Progress

if TYPE_CHECKING:
    # Stubs carry no marker: test_trt_types.py points mypy at them.
    import tensorrt_bindings.tensorrt as trt  # type: ignore[import-untyped,import-not-found,unused-ignore]

_LOG = logging.getLogger(__name__)
_KEPT_ERRORS = 20
_loggers: dict[str, Any] = {}


@dataclass(frozen=True)
class BuildPlan:
    """How one engine is built.

    Attributes:
        half: float16, which only matters to versions without strong typing.
        compute_capability: e.g. ``"8.9"``, the GPU to build for; empty = the one that is here.
            Only TensorRT for RTX builds for another.
        optimization_level: 0..5, None = the library's default.
        workspace: bytes of scratch memory at most, 0 = the library's default.
        timing_cache: file that remembers how fast each kernel was, read and written.
    """

    half: bool
    compute_capability: str = ""
    optimization_level: int | None = None
    workspace: int = 0
    timing_cache: Path | None = None


def build_engine(
    library: Any, graph: bytes, destination: Path, plan: BuildPlan, report: Progress
) -> None:
    """Build the engine of a static ONNX graph and write it.

    Args:
        library: the imported ``tensorrt`` or ``tensorrt_rtx``.
        graph: ONNX file's content.
        destination: receives the engine.
        plan: how to build.
        report: told of the builder's progress.

    Raises:
        EngineBuildError: the graph is not understood, or the builder failed; says why.
        DeviceOutOfMemoryError: no memory left while building.
    """
    with collected_errors(library) as (logger, errors):
        builder: trt.Builder = library.Builder(logger)
        network: trt.INetworkDefinition = builder.create_network(_network_flags(library))
        parser: trt.OnnxParser = library.OnnxParser(network, logger)
        if not parser.parse(graph):
            problems = "; ".join(
                str(parser.get_error(index).desc()) for index in range(parser.num_errors)
            )
            raise EngineBuildError(
                f"{library.__name__} {library.__version__} does not take this graph: {problems}"
            )
        config: trt.IBuilderConfig = builder.create_builder_config()
        _configure(library, config, plan)
        config.progress_monitor = progress_monitor(library, report)
        cache = _read_timing_cache(config, plan.timing_cache)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise _build_error(library, list(errors))
        destination.write_bytes(memoryview(engine))
        _write_timing_cache(cache, plan.timing_cache)


def _network_flags(library: Any) -> int:
    flags = library.NetworkDefinitionCreationFlag
    typed = getattr(flags, "STRONGLY_TYPED", None)
    # The flag's number differs between versions, so it is never written as a constant.
    return 0 if typed is None else 1 << int(typed)


def _configure(library: Any, config: trt.IBuilderConfig, plan: BuildPlan) -> None:
    typed = hasattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    if plan.half and not typed and hasattr(library.BuilderFlag, "FP16"):
        config.set_flag(library.BuilderFlag.FP16)
    if plan.optimization_level is not None:
        config.builder_optimization_level = plan.optimization_level
    if plan.workspace:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, plan.workspace)
    if plan.compute_capability and hasattr(library, "ComputeCapability"):
        target: Any = config  # TensorRT for RTX only; unknown to tensorrt's stubs
        name = "SM" + plan.compute_capability.replace(".", "")
        known = library.ComputeCapability.__members__
        if name not in known:
            raise EngineBuildError(
                f"{library.__name__} {library.__version__} builds nothing for compute capability"
                f" {plan.compute_capability}: it knows"
                f" {', '.join(n for n in known if n.startswith('SM'))}"
            )
        target.num_compute_capabilities = 1
        if not target.set_compute_capability(known[name], 0):
            raise EngineBuildError(f"{library.__name__} refused compute capability {name}")


def _build_error(library: Any, errors: list[str]) -> Exception:
    detail = "; ".join(errors) or "it gave no reason"
    what = f"{library.__name__} {library.__version__} could not build the engine: {detail}"
    if "out of memory" in detail.lower() or "outofmemory" in detail.lower():
        return DeviceOutOfMemoryError(
            f"{what}; stop other programs that use the GPU, or set workspace_mib lower"
        )
    return EngineBuildError(what)


def _read_timing_cache(config: trt.IBuilderConfig, path: Path | None) -> Any:
    """Give the builder what it learnt before. Worth time only, so failures are no errors."""
    if path is None:
        return None
    content = b""
    with contextlib.suppress(OSError):
        content = path.read_bytes()
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        if content:
            _LOG.warning("timing cache %s is not of this library: starting a new one", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _write_timing_cache(cache: Any, path: Path | None) -> None:
    if path is None or cache is None:
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(memoryview(cache.serialize()))
        os.replace(temporary, path)
    except OSError as error:
        _LOG.warning("timing cache %s not written (%s): the next build learns anew", path, error)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def progress_monitor(library: Any, report: Progress) -> Any:
    """Return an ``IProgressMonitor`` that turns nested phases into one share, never falling.

    An exception of ``report`` stops the build.
    """

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._lock = threading.Lock()
            self._phases: dict[str, list[Any]] = {}  # name -> [parent, steps, steps done]
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = [parent_phase, max(num_steps, 1), 0]
            self._tell(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name][2] = step + 1
            return self._tell(phase_name)

        def _tell(self, name: str) -> bool:
            with self._lock:
                self._share = max(self._share, self._share_of(name))
                share = self._share
            try:
                report(share, name)
            except Exception:  # noqa: BLE001
                # Called from the builder's C++, which an exception must not cross.
                _LOG.exception("progress report failed: the build is stopped")
                return False
            return True

        def _share_of(self, name: str) -> float:
            inner, seen = 0.0, set()
            current: str | None = name
            while current in self._phases and current not in seen:
                seen.add(current)
                parent, steps, done = self._phases[current]
                inner = min((done + inner) / steps, 1.0)
                current = parent
            return min(inner, 0.99)  # 1 is for the engine on disk

    return Monitor()


@contextlib.contextmanager
def collected_errors(library: Any) -> Iterator[tuple[Any, deque[str]]]:
    """Yield the library's logger and the errors that it reports in the block.

    TensorRT keeps the first logger of the process for good, so there is one for each library;
    its lines go to Python's logging.
    """
    logger = _loggers.get(library.__name__)
    if logger is None:
        logger = _loggers[library.__name__] = _make_logger(library)
    errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
    logger.collectors.append(errors)
    try:
        yield logger, errors
    finally:
        logger.collectors.remove(errors)


def _make_logger(library: Any) -> Any:
    severity = library.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,
        severity.VERBOSE: logging.DEBUG - 5,
    }
    log = logging.getLogger(f"{__name__}.{library.__name__}")

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.collectors: list[deque[str]] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                for collector in self.collectors:
                    collector.append(message.strip())
            log.log(level, "%s", message.strip())

    return Logger()
