"""PyTorch FP16 and the CUDA calls of the TensorRT runtime on a real NVIDIA GPU.

python3 -m pytest test/gpu/test_gpu_pytorch.py -q -rs
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance_cases import find_weights

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import DeviceOutOfMemoryError
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU"),
]

IMAGE = np.random.default_rng(0).integers(0, 256, (480, 640, 1), dtype=np.uint8)


def make(folder: Path, graph: bool) -> tuple[Any, Any]:
    from gps_denied_inference.runtimes.pytorch.runtime import PytorchFp16Runtime

    weights = find_weights()
    if weights is None:
        pytest.skip("no published XFeat weights: run 'gdi models fetch xfeat'")
    runtime = PytorchFp16Runtime(cache=EngineCache(folder))
    config = BuildConfig(precision="fp16", device="cuda", cuda_graph=graph)
    return runtime, runtime.compile_engine(zoo.resolve("xfeat", weights=weights), config)


def hog() -> list[Any]:
    """Take all of the GPU's memory, also what PyTorch would keep for itself.

    From large to small: one allocation of all that is said to be free fails on some days, since
    the driver deals in pages of 2 MiB.
    """
    torch.cuda.empty_cache()
    taken = []
    for size in (1 << 30, 64 << 20, 20 << 20, 2 << 20, 1 << 20):
        while True:
            try:
                taken.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                break
    return taken


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_out_of_memory_while_loading_gives_everything_back(tmp_path: Path, graph: bool) -> None:
    runtime, entry = make(tmp_path, graph)
    runtime.release_engine(runtime.deserialize_engine(entry))  # the library's own share
    taken = hog()
    held = torch.cuda.memory_allocated()
    with pytest.raises(DeviceOutOfMemoryError) as caught:
        runtime.deserialize_engine(entry)
    assert caught.value.__cause__ is not None
    assert torch.cuda.memory_allocated() == held  # although the error is still there
    del taken
    torch.cuda.empty_cache()
    runtime.release_engine(runtime.deserialize_engine(entry))


def test_out_of_memory_while_running_leaves_the_engine_usable(tmp_path: Path) -> None:
    runtime, entry = make(tmp_path, False)
    handle = runtime.deserialize_engine(entry)
    wanted = runtime.infer(handle, {"image": IMAGE})["keypoints"]
    taken = hog()
    with pytest.raises(DeviceOutOfMemoryError):
        runtime.infer(handle, {"image": IMAGE})
    del taken
    torch.cuda.empty_cache()
    np.testing.assert_array_equal(runtime.infer(handle, {"image": IMAGE})["keypoints"], wanted)
    runtime.release_engine(handle)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_release_gives_all_memory_back(tmp_path: Path, graph: bool) -> None:
    runtime, entry = make(tmp_path, graph)
    runtime.release_engine(runtime.deserialize_engine(entry))
    before = torch.cuda.mem_get_info()[0]
    for _ in range(5):
        handle = runtime.deserialize_engine(entry)
        runtime.infer(handle, {"image": IMAGE})
        runtime.release_engine(handle)
    assert torch.cuda.memory_allocated() == 0
    assert torch.cuda.memory_reserved() == 0
    assert before - torch.cuda.mem_get_info()[0] <= 1 << 20


class TestCudaMemory:
    """The calls that TensorRT leaves to its caller."""

    @pytest.fixture
    def cuda(self) -> Iterator[Any]:
        pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
        from gps_denied_inference.runtimes.tensorrt.cuda_memory import Cuda

        cuda = Cuda(0)
        yield cuda
        cuda.close()

    def test_data_goes_there_and_back(self, cuda: Any) -> None:
        there = cuda.pinned_array((480, 640, 1), "uint8")
        back = cuda.pinned_array((480, 640, 1), "uint8")
        address = cuda.device_buffer(there.nbytes)
        there[...] = IMAGE
        cuda.to_device(address, there)
        cuda.to_host(back, address)
        cuda.synchronize()
        np.testing.assert_array_equal(back, IMAGE)

    def test_a_captured_graph_runs_only_when_launched(self, cuda: Any) -> None:
        there = cuda.pinned_array((1000, 64), "float32")
        back = cuda.pinned_array((1000, 64), "float32")
        address = cuda.device_buffer(there.nbytes)
        graph: list[Any] = []
        with cuda.capture(graph):
            cuda.to_device(address, there)
            cuda.to_host(back, address)
        for value in (1.0, 2.0):
            there[...] = value
            cuda.synchronize()
            assert not np.any(back == value)
            cuda.launch(graph[0])
            cuda.synchronize()
            assert np.all(back == value)

    def test_a_failed_capture_leaves_the_stream_usable(self, cuda: Any) -> None:
        host = cuda.pinned_array((8,), "int32")
        address = cuda.device_buffer(host.nbytes)

        def fail() -> None:
            with cuda.capture([]):
                cuda.to_device(address, host)
                raise ValueError("stop")

        with pytest.raises(ValueError, match="stop"):
            fail()
        host[...] = 5
        cuda.to_device(address, host)
        host_back = cuda.pinned_array((8,), "int32")
        cuda.to_host(host_back, address)
        cuda.synchronize()
        assert np.all(host_back == 5)

    def test_close_frees_what_was_taken(self) -> None:
        pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
        from gps_denied_inference.runtimes.tensorrt.cuda_memory import Cuda

        torch.cuda.init()
        Cuda(0).close()
        before = torch.cuda.mem_get_info()[0]
        for _ in range(10):
            cuda = Cuda(0)
            cuda.device_buffer(256 << 20)
            cuda.close()
            cuda.close()
        assert torch.cuda.mem_get_info()[0] == before

    def test_too_much_is_out_of_memory(self, cuda: Any) -> None:
        from gps_denied_inference.runtimes.tensorrt.cuda_memory import CudaError

        with pytest.raises(CudaError) as caught:
            cuda.device_buffer(1 << 45)
        assert caught.value.out_of_memory
