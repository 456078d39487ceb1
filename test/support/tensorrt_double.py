"""A stand-in for ``tensorrt`` and for CUDA, for machines without a GPU.

An "engine" is the ONNX graph itself; the execution context runs it with ONNX Runtime on the memory
whose addresses it was given, and a CUDA graph is a list of calls. What it is strict about is what
the real ones are strict about: nothing runs before it is launched, nothing is read before the
stream is synchronised, every buffer must be live, capture forbids allocation, and all is freed.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

__version__ = "0.double"

live_cudas: list[DoubleCuda] = []


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 3


class DataType(enum.Enum):
    FLOAT, HALF, INT32, UINT8, INT64 = range(5)


_NUMPY = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int32)": np.int32}


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProgressMonitor:
    pass


BuilderFlag = SimpleNamespace()
MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Any:
        assert flags == 1 << 3, "the network must be strongly typed"
        return SimpleNamespace(graph=b"")

    def create_builder_config(self) -> Any:
        return BuilderConfig()

    def build_serialized_network(self, network: Any, config: BuilderConfig) -> bytes | None:
        monitor = config.progress_monitor
        _from_native(monitor.phase_start, "outer", None, 2)
        for outer in range(2):
            _from_native(monitor.phase_start, "inner", "outer", 3)
            for inner in range(3):
                _from_native(config.during)
                if not _from_native(monitor.step_complete, "inner", inner):
                    self.logger.log(ILogger.Severity.ERROR, "stopped by the progress monitor")
                    return None
            _from_native(monitor.phase_finish, "inner")
            _from_native(monitor.step_complete, "outer", outer)
        _from_native(monitor.phase_finish, "outer")
        if config.fault:
            self.logger.log(ILogger.Severity.ERROR, config.fault)
            return None
        config.cache.learnt = b"learnt"
        return bytes(network.graph)


def _from_native(callback: Callable[..., Any], *arguments: Any) -> Any:
    """Call as the library's C++ does: an exception is printed and lost, and counts as False."""
    try:
        return callback(*arguments)
    except BaseException as error:
        print(f"[ERROR] Exception caught in a callback: {error!r}")
        return False


class BuilderConfig:
    fault = ""

    @staticmethod
    def during() -> None:
        """What happens in this process while the builder works."""

    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.cache: Any = None

    def create_timing_cache(self, content: bytes) -> Any:
        if content not in (b"", b"learnt"):
            return None
        return SimpleNamespace(learnt=content, serialize=lambda: self.cache.learnt)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True


class OnnxParser:
    def __init__(self, network: Any, logger: ILogger) -> None:
        self.network = network
        self.num_errors = 0

    def parse(self, graph: bytes) -> bool:
        self.network.graph = graph
        try:
            onnx.checker.check_model(onnx.load_from_string(graph))
        except Exception:
            self.num_errors = 1
            return False
        return True

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: f"error {index}: not a graph")


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        assert live_cudas, "the device must be current before an engine is made on it"
        return Engine(data)


class Engine:
    def __init__(self, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        self._tensors = {
            value.name: value for value in [*self.session.get_inputs(), *self.session.get_outputs()]
        }
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return {
            "tensor(float)": DataType.FLOAT,
            "tensor(uint8)": DataType.UINT8,
            "tensor(int32)": DataType.INT32,
        }[self._tensors[name].type]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self._engine._tensors:
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream, "the default stream must not be used"
        cuda = next(cuda for cuda in live_cudas if cuda.stream == stream)
        cuda.queue(lambda: self._run(cuda))
        return True

    def _run(self, cuda: DoubleCuda) -> None:
        session = self._engine.session
        feeds = {
            value.name: cuda.view(
                self._addresses[value.name], tuple(value.shape), _NUMPY[value.type]
            )
            for value in session.get_inputs()
        }
        results = session.run(None, feeds)
        for value, result in zip(session.get_outputs(), results, strict=True):
            target = cuda.view(self._addresses[value.name], result.shape, result.dtype)
            target[...] = result


class DoubleCuda:
    """Same methods as ``cuda_memory.Cuda``, on host memory."""

    _streams = 0

    def __init__(self, index: int) -> None:
        assert index == 0
        DoubleCuda._streams += 1
        self.stream = DoubleCuda._streams
        self._memory: dict[int, Any] = {}
        self._pending: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        live_cudas.append(self)

    def make_current(self) -> None:
        pass

    def device_buffer(self, size: int) -> int:
        assert self._recording is None, "no allocation while capturing"
        memory = (ctypes.c_uint8 * max(size, 1))()
        address = ctypes.addressof(memory)
        self._memory[address] = memory
        return address

    def pinned_array(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.view(self.device_buffer(size), shape, dtype)

    def view(self, address: int, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
        count = int(np.prod(shape))
        return np.frombuffer(self._memory[address], np.dtype(dtype), count).reshape(shape)

    def to_device(self, address: int, host: npt.NDArray[Any]) -> None:
        self.queue(lambda: ctypes.memmove(address, host.ctypes.data, host.nbytes))

    def to_host(self, host: npt.NDArray[Any], address: int) -> None:
        self.queue(lambda: ctypes.memmove(host.ctypes.data, address, host.nbytes))

    def queue(self, call: Callable[[], Any]) -> None:
        (self._pending if self._recording is None else self._recording).append(call)

    def synchronize(self) -> None:
        pending, self._pending = self._pending, []
        for call in pending:
            call()

    @contextlib.contextmanager
    def capture(self, into: list[Any]) -> Iterator[None]:
        assert not self._pending, "what was queued must be done before capturing"
        self._recording = []
        try:
            yield
        finally:
            recorded, self._recording = self._recording, None
        into.append(recorded)

    def launch(self, executable: list[Callable[[], None]]) -> None:
        self._pending.extend(executable)

    def close(self) -> None:
        self._memory.clear()
        live_cudas.remove(self)
