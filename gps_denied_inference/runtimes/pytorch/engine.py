"""A torch module on its device, with fixed buffers around it. The one runtime module with torch.

Inputs and outputs pass through host buffers that are made once (page-locked for a GPU), and a GPU
works on a stream of its own, so that engines do not wait for one another.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import traceback
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gps_denied_inference.models.registry import load_module
from gps_denied_inference.runtimes.contract import EngineCacheEntry, TensorSpec

VERSION: str = torch.__version__

_CUDA: Any = torch.cuda  # parts of it carry no types

# Before a capture PyTorch needs a few passes on the capturing stream, so that library handles and
# workspaces, which are made when first needed, exist.
_PASSES_BEFORE_CAPTURE = 3


_LIVE: weakref.WeakSet[TorchEngine] = weakref.WeakSet()
"""Engines that are loaded in this process."""


class TorchEngine:
    """A module in eval mode and the buffers that it reads and writes.

    Args:
        module: takes tensors in the order of ``inputs``, returns them in the order of ``outputs``.
        device: ``"cpu"`` or ``"cuda:N"``.
        half: float16 instead of float32 weights.
        inputs, outputs: the engine's tensors.

    Attributes:
        lock: held by whoever runs or releases the engine.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: str,
        half: bool,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self.device = torch.device(device)
        module = module.half() if half else module.float()
        self._module = module.to(self.device).eval().requires_grad_(False)
        self.dtype = torch.float16 if half else torch.float32
        self.lock = threading.Lock()
        on_gpu = self.device.type == "cuda"
        self._host_inputs = [_buffer(spec, "cpu", on_gpu) for spec in inputs]
        self._host_outputs = [_buffer(spec, "cpu", on_gpu) for spec in outputs]
        self._inputs = (
            [_buffer(spec, self.device, False) for spec in inputs] if on_gpu else self._host_inputs
        )
        self._stream = _CUDA.Stream(self.device) if on_gpu else None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._graph_outputs: tuple[torch.Tensor, ...] = ()
        _LIVE.add(self)

    @property
    def training(self) -> bool:
        """True where any part of the module is not in eval mode."""
        return any(part.training for part in self._module.modules())

    @property
    def captured(self) -> bool:
        """True where passes are replays of a CUDA graph."""
        return self._graph is not None

    def misplaced(self) -> str:
        """Return the first weight of another dtype or device than asked for, in words, or ""."""
        for name, value in self._module.state_dict().items():
            if value.device != self.device or (
                value.is_floating_point() and value.dtype != self.dtype
            ):
                return f"'{name}' is {value.dtype} on {value.device}"
        return ""

    def output_types(self) -> list[tuple[tuple[int, ...], str]]:
        """Run once and return shape and dtype name of each output."""
        with torch.inference_mode(), self._on_stream():
            results = tuple(self._module(*self._inputs))
        self._wait()
        return [(tuple(r.shape), str(r.dtype).removeprefix("torch.")) for r in results]

    def run(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one forward pass and return arrays that are the caller's own."""
        for array, buffer in zip(arrays, self._host_inputs, strict=True):
            np.copyto(buffer.numpy(), array)
        self._forward()
        return [buffer.numpy().copy() for buffer in self._host_outputs]

    def warm_up(self, passes: int) -> None:
        """Run ``passes`` times on what the buffers hold."""
        for _ in range(passes):
            self._forward()

    def capture(self) -> None:
        """Turn the forward pass into a CUDA graph; the copies around it stay outside."""
        self.warm_up(_PASSES_BEFORE_CAPTURE)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: what other threads of the process do on the GPU spoils no capture.
        recording = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        with torch.inference_mode(), recording:
            outputs = tuple(self._module(*self._inputs))
        self._graph, self._graph_outputs = graph, outputs
        self._forward()

    def close(self) -> None:
        """Drop the graph, the module and the buffers. The engine is of no use afterwards."""
        if self._graph is not None:
            self._wait()
            self._graph.reset()
        _LIVE.discard(self)
        lock = self.lock
        self.__dict__.clear()
        self.lock = lock  # a call that lost the race for it still finds it

    def _forward(self) -> None:
        with torch.inference_mode(), self._on_stream():
            if self._stream is not None:
                for target, source in zip(self._inputs, self._host_inputs, strict=True):
                    target.copy_(source, non_blocking=True)
            if self._graph is not None:
                self._graph.replay()
                results = self._graph_outputs
            else:
                results = tuple(self._module(*self._inputs))
            for target, source in zip(self._host_outputs, results, strict=True):
                target.copy_(source, non_blocking=True)
        self._wait()

    def _on_stream(self) -> contextlib.AbstractContextManager[Any]:
        if self._stream is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._stream)

    def _wait(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()


def _buffer(spec: TensorSpec, device: torch.device | str, pinned: bool) -> torch.Tensor:
    dtype = getattr(torch, spec.dtype)
    return torch.zeros(spec.shape, dtype=dtype, device=device, pin_memory=pinned)


def set_threads(threads: int) -> None:
    """Set the CPU threads of this process's PyTorch; 0 leaves its default."""
    if threads:
        torch.set_num_threads(threads)


def gpu_count() -> int:
    """Return how many GPUs PyTorch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu(index: int) -> tuple[str, str]:
    """Return name and compute capability of a GPU."""
    properties = torch.cuda.get_device_properties(index)
    return properties.name, f"{properties.major}.{properties.minor}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether PyTorch failed for want of memory, on the device or the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Memory taken outside PyTorch's allocator (library handles, graphs) fails as a plain error.
    return isinstance(error, RuntimeError) and "out of memory" in str(error).lower()


def free_after(error: BaseException) -> None:
    """Give back what a failed call still holds through the frames of its traceback."""
    traceback.clear_frames(error.__traceback__)
    free_unused_memory()


def free_unused_memory() -> None:
    """Return what PyTorch keeps for later to the driver."""
    gc.collect()  # modules hold cycles; their memory must go back now, not some time
    if not _CUDA.is_initialized():
        return
    # The workspaces of cuBLAS are the process's, and a captured graph writes into them at every
    # replay: they may go only with the last engine.
    names = ("_host_emptyCache",) if _LIVE else ("_cuda_clearCublasWorkspaces", "_host_emptyCache")
    for name in names:
        free = getattr(torch._C, name, None)  # not in every version
        if free is not None:
            free()
    torch.cuda.empty_cache()


def module_of(entry: EngineCacheEntry, weights: bytes) -> torch.nn.Module:
    """Build an engine's network from the very bytes that passed the gate.

    Raises:
        ModelIntegrityError, ModelMismatchError, InvalidParameterError.
    """
    if not weights:  # a network without weights
        return load_module(entry.model, entry.config)
    with tempfile.TemporaryDirectory(prefix="gdi-") as folder:  # architectures read a file
        path = Path(folder) / f"{entry.model.name}.pt"
        path.write_bytes(weights)
        return load_module(replace(entry.model, weights=path), entry.config)
