"""ONNX graph to TensorRT engine, with any of ``tensorrt`` 10.x, 11.x and ``tensorrt_rtx``.

The library comes in as an argument: what is written here holds for all three. The network is
strongly typed, so that the graph alone says what runs in float16 and no builder decides otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    EngineBuildError,
    GpsDeniedInferenceError,
    StorageError,
)
from gps_denied_inference.runtimes.contract import Progress
from gps_denied_inference.storage.files import read_regular
from gps_denied_inference.storage.writing import write_file

if TYPE_CHECKING:
    # Stubs carry no marker: test_trt_types.py points mypy at them.
    import tensorrt_bindings.tensorrt as trt  # type: ignore[import-untyped,import-not-found,unused-ignore]

_LOG = logging.getLogger(__name__)
_KEPT_ERRORS = 20
_MAX_TIMING_CACHE_BYTES = 1 << 28
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
        report: told of the builder's progress; what it raises stops the build.

    Raises:
        EngineBuildError: the graph is not understood, the builder failed, or ``report`` raised what
            is no error of this package; says why.
        DeviceOutOfMemoryError: no memory left while building.
        KeyboardInterrupt: SIGINT came while building, once the builder has stopped. So does any
            other exception that ends a process, or error of this package, from ``report``.
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
        stop = StopRequest()
        config.progress_monitor = progress_monitor(library, report, stop)
        cache = _read_timing_cache(config, plan.timing_cache)
        with stop.on_interrupt():
            engine = builder.build_serialized_network(network, config)
        stop.raise_cause()
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
    with contextlib.suppress(StorageError):
        content = read_regular(path, _MAX_TIMING_CACHE_BYTES)
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
    try:
        write_file(path, bytes(memoryview(cache.serialize())), "the timing cache", make_folder=True)
    except StorageError as error:
        _LOG.warning("%s: the next build learns anew", error)


class StopRequest:
    """Why a build is to stop, kept until the builder has.

    The builder is C++ that calls back into Python, which an exception must not cross: what the
    callbacks raise waits here, and so does SIGINT, whose KeyboardInterrupt would be raised at the
    entry of a callback and be lost.
    """

    def __init__(self) -> None:
        self._cause: BaseException | None = None
        self._interrupt: tuple[Any, ...] | None = None

    def __bool__(self) -> bool:
        return self._cause is not None or self._interrupt is not None

    def because(self, error: BaseException) -> None:
        """Stop the build on account of an exception; the first one counts."""
        if self._cause is None:
            self._cause = error

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Keep SIGINT while in the block, and hand it to whoever handles it afterwards."""
        before = None
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
        if not callable(before):  # another thread's, or no Python code's: nothing is raised here
            yield
            return
        signal.signal(signal.SIGINT, self._keep)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self._interrupt is not None:
            before(*self._interrupt)

    def _keep(self, number: int, frame: Any) -> None:
        self._interrupt = (number, frame)

    def raise_cause(self) -> None:
        """Raise what asked to stop, if anything did."""
        error = self._cause
        if error is None:
            return
        if isinstance(error, GpsDeniedInferenceError) or not isinstance(error, Exception):
            raise error
        raise EngineBuildError(
            f"the build was stopped, since its progress could not be told: {error}"
        ) from error


def progress_monitor(library: Any, report: Progress, stop: StopRequest) -> Any:
    """Return an ``IProgressMonitor`` that turns nested phases into one share, never falling.

    It ends the build where ``stop`` says so; what ``report`` raises is its cause.
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
            if not stop:
                try:
                    report(share, name)
                except BaseException as error:  # noqa: BLE001
                    stop.because(error)
            return not stop

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
