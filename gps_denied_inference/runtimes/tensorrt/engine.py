"""A TensorRT engine on its device, with fixed buffers and a stream of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import EngineLoadError
from gps_denied_inference.runtimes.contract import TensorSpec
from gps_denied_inference.runtimes.tensorrt.builder import collected_errors
from gps_denied_inference.runtimes.tensorrt.cuda_memory import Cuda, CudaError

if TYPE_CHECKING:
    # Stubs carry no marker: test_trt_types.py points mypy at them.
    import tensorrt_bindings.tensorrt as trt  # type: ignore[import-untyped,import-not-found,unused-ignore]

CudaFactory = Callable[[int], Cuda]


class TrtEngine:
    """Deserialised engine, execution context, device and pinned host buffers.

    Args:
        library: the imported ``tensorrt`` or ``tensorrt_rtx``.
        data: the engine's bytes, verified by the gate.
        inputs, outputs: what its manifest says; compared with what the engine says.
        index: N of ``cuda:N``.
        cuda: makes the CUDA calls; replaced in tests.

    Raises:
        RefusedByLibrary: deserialising gave nothing.
        EngineLoadError: the engine's tensors are not its manifest's.
        CudaError, RuntimeError: no memory, no context, or the device does not start.

    Attributes:
        lock: held by whoever runs or releases the engine.
    """

    def __init__(
        self,
        library: Any,
        data: bytes,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        index: int,
        cuda: CudaFactory = Cuda,
    ) -> None:
        self.lock = threading.Lock()
        self._library = library
        self._graph: list[Any] = []
        self._inputs: list[tuple[npt.NDArray[Any], int]] = []
        self._outputs: list[tuple[npt.NDArray[Any], int]] = []
        self._cuda: Cuda | None = cuda(index)  # first: the engine is made on the current device
        try:
            # The context needs the engine, and the engine its runtime, for as long as they live.
            self._runtime, self._engine, self._context = _deserialize(
                library, data, [*inputs, *outputs]
            )
            self._inputs = [self._bind(spec) for spec in inputs]
            self._outputs = [self._bind(spec) for spec in outputs]
        except BaseException:
            with contextlib.suppress(CudaError):  # the first failure is the one to tell
                self.close()
            raise

    @property
    def captured(self) -> bool:
        """True where passes are replays of a CUDA graph."""
        return bool(self._graph)

    def run(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one forward pass and return arrays that are the caller's own."""
        cuda = self._live_cuda()
        cuda.make_current()
        for array, (host, _) in zip(arrays, self._inputs, strict=True):
            np.copyto(host, array)
        self._forward()
        return [host.copy() for host, _ in self._outputs]

    def warm_up(self, passes: int) -> None:
        """Run ``passes`` times on what the buffers hold."""
        self._live_cuda().make_current()
        for _ in range(passes):
            self._forward()

    def capture(self) -> None:
        """Turn the copies and the pass between them into one CUDA graph."""
        cuda = self._live_cuda()
        self.warm_up(1)  # what is made on the first pass cannot be made while capturing
        graph: list[Any] = []
        with cuda.capture(graph):
            self._queue()
        self._graph = graph
        self._forward()

    def close(self) -> None:
        """Give device and host memory back. Twice is fine."""
        cuda, self._cuda = self._cuda, None
        if cuda is None:
            return
        self._graph, self._inputs, self._outputs = [], [], []
        for name in ("_context", "_engine", "_runtime"):  # in this order
            self.__dict__.pop(name, None)
        cuda.close()

    def _bind(self, spec: TensorSpec) -> tuple[npt.NDArray[Any], int]:
        cuda = self._live_cuda()
        host = cuda.pinned_array(spec.shape, spec.dtype)
        address = cuda.device_buffer(host.nbytes)
        if not self._context.set_tensor_address(spec.name, address):
            raise EngineLoadError(f"the engine takes no address for '{spec.name}'")
        return host, address

    def _forward(self) -> None:
        cuda = self._live_cuda()
        if self._graph:
            cuda.launch(self._graph[0])
        else:
            self._queue()
        cuda.synchronize()

    def _queue(self) -> None:
        cuda = self._live_cuda()
        for host, address in self._inputs:
            cuda.to_device(address, host)
        with collected_errors(self._library) as (_, errors):
            if not self._context.execute_async_v3(cuda.stream):
                detail = "; ".join(errors) or "no reason was given"
                raise RuntimeError(f"the engine could not be queued: {detail}")
        for host, address in self._outputs:
            cuda.to_host(host, address)

    def _live_cuda(self) -> Cuda:
        if self._cuda is None:
            raise RuntimeError("the engine was closed")
        return self._cuda


class RefusedByLibrary(Exception):  # noqa: N818
    """The library gave no engine for these bytes.

    Attributes:
        errors: what it logged.
    """

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        super().__init__("; ".join(errors) or "the library gave no reason")


def _deserialize(
    library: Any, data: bytes, specs: Sequence[TensorSpec]
) -> tuple[trt.Runtime, trt.ICudaEngine, trt.IExecutionContext]:
    with collected_errors(library) as (logger, errors):
        runtime: trt.Runtime = library.Runtime(logger)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise RefusedByLibrary(list(errors))
        _check_tensors(library, engine, specs)
        context: trt.IExecutionContext | None = engine.create_execution_context()
        if context is None:
            detail = "; ".join(errors) or "no reason was given"
            raise RuntimeError(f"no execution context: {detail}")
    return runtime, engine, context


def _check_tensors(library: Any, engine: trt.ICudaEngine, specs: Sequence[TensorSpec]) -> None:
    types = {
        library.DataType.FLOAT: "float32",
        library.DataType.HALF: "float16",
        library.DataType.INT32: "int32",
        library.DataType.UINT8: "uint8",
    }
    if hasattr(library.DataType, "INT64"):
        types[library.DataType.INT64] = "int64"
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name)
        found[name] = (tuple(engine.get_tensor_shape(name)), types.get(dtype, str(dtype)))
    wanted = {spec.name: (spec.shape, spec.dtype) for spec in specs}
    if found != wanted:
        raise EngineLoadError(f"the engine has the tensors {found}, its manifest says {wanted}")
