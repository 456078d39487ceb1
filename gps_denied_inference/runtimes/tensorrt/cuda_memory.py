"""The few CUDA calls that TensorRT leaves to its caller, through ``cuda-python``.

Everything that is taken here is given back by ``close``; an address is a plain integer. The
objects belong to one device, which is made current in the calling thread before every use.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.runtimes.tensorrt.probe import CUDA_MODULES

_HINT = "python3 -m pip install cuda-python"
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


class CudaError(Exception):
    """A CUDA call failed.

    Attributes:
        out_of_memory: True where the device or the host has no memory left.
    """

    def __init__(self, call: str, code: int, name: str) -> None:
        self.out_of_memory = code == _OUT_OF_MEMORY
        super().__init__(f"{call} failed with CUDA error {code} ({name})")


class Cuda:
    """One device, its stream, and the memory taken on it.

    Args:
        index: N of ``cuda:N``.

    Raises:
        RuntimeUnavailableError: ``cuda-python`` cannot be imported.
        CudaError: the device does not start.
    """

    def __init__(self, index: int) -> None:
        self._runtime = _import_runtime()
        self._index = index
        self._undo: list[Callable[[], object]] = []
        self.make_current()
        # Not the default stream: that one waits for every other in the process.
        flags = self._runtime.cudaStreamNonBlocking
        self.stream = int(self._call("cudaStreamCreateWithFlags", flags))
        self._undo.append(lambda: self._call("cudaStreamDestroy", self.stream))

    def make_current(self) -> None:
        """Make the device current in the calling thread."""
        self._call("cudaSetDevice", self._index)

    def device_buffer(self, size: int) -> int:
        """Return the address of ``size`` bytes on the device."""
        address = int(self._call("cudaMalloc", max(size, 1)))
        self._undo.append(lambda: self._call("cudaFree", address))
        return address

    def pinned_array(self, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
        """Return a zeroed page-locked host array; it dies with ``close``."""
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        address = int(self._call("cudaHostAlloc", size, self._runtime.cudaHostAllocDefault))
        self._undo.append(lambda: self._call("cudaFreeHost", address))
        ctypes.memset(address, 0, size)
        memory: Any = (ctypes.c_uint8 * size).from_address(address)
        array: npt.NDArray[Any] = np.frombuffer(memory, np.dtype(dtype), int(np.prod(shape)))
        return array.reshape(shape)

    def to_device(self, address: int, host: npt.NDArray[Any]) -> None:
        """Queue a copy of a pinned array to the device."""
        self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def to_host(self, host: npt.NDArray[Any], address: int) -> None:
        """Queue a copy from the device into a pinned array."""
        self._copy(host.ctypes.data, address, host.nbytes, "cudaMemcpyDeviceToHost")

    def synchronize(self) -> None:
        """Wait for everything that was queued."""
        self._call("cudaStreamSynchronize", self.stream)

    @contextlib.contextmanager
    def capture(self, into: list[int]) -> Iterator[None]:
        """Record what is queued in the block instead of running it.

        Args:
            into: receives the executable graph, for :meth:`launch`.
        """
        # Thread-local mode: other threads may allocate while this one captures.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)
        try:
            yield
        except BaseException:
            with contextlib.suppress(CudaError):
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", self.stream))
            raise
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        self._undo.append(lambda: self._call("cudaGraphExecDestroy", executable))
        into.append(executable)

    def launch(self, executable: object) -> None:
        """Queue a recorded graph."""
        self._call("cudaGraphLaunch", executable, self.stream)

    def close(self) -> None:
        """Give everything back, newest first. Twice is fine.

        Raises:
            CudaError: the first failure, after everything was tried.
        """
        failure: CudaError | None = None
        self.make_current()
        while self._undo:
            try:
                self._undo.pop()()
            except CudaError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._runtime.cudaMemcpyKind, kind)
        self._call("cudaMemcpyAsync", target, source, size, direction, self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._runtime, name)(*arguments)
        if int(status):
            raise CudaError(name, int(status), getattr(status, "name", "unknown"))
        return results[0] if results else None


def _import_runtime() -> Any:
    for name in CUDA_MODULES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            continue
    raise RuntimeUnavailableError(
        "TensorRT engines need cuda-python to move data, and it cannot be imported", _HINT
    )
