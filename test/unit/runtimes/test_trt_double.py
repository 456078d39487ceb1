"""The TensorRT runtime over the double of its library and of CUDA: its own code, without a GPU."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tensorrt_double as double

from gps_denied_inference.cli.main import main
from gps_denied_inference.engines import reasons
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.errors import (
    ConfigurationError,
    DeviceOutOfMemoryError,
    EngineBuildError,
    EngineLoadError,
    EngineRejectedError,
    InferenceError,
    InvalidParameterError,
    RuntimeUnavailableError,
)
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig, EngineCacheEntry
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.runtimes.tensorrt.cuda_memory import CudaError
from gps_denied_inference.runtimes.tensorrt.probe import find_tensorrt
from gps_denied_inference.runtimes.tensorrt.runtime import TensorrtRuntime

NO_GPU = GpuSurvey(reason="there is no GPU in this test")
ORIN = GpuSurvey((Gpu(0, "Orin", "8.7", 1 << 35),), "12.6")
H100 = GpuSurvey((Gpu(0, "H100", "9.0", 1 << 36),), "13.0")

CONFIG = BuildConfig(height=64, width=96, max_keypoints=32, device="cuda", warmup_iterations=1)


def on_double(folder: Path, **options: Any) -> TensorrtRuntime:
    defaults: dict[str, Any] = {"module": double, "gpus": ORIN, "cuda": double.DoubleCuda}
    return TensorrtRuntime(cache=EngineCache(folder), **{**defaults, **options})


def entry_of(runtime: TensorrtRuntime, config: BuildConfig = CONFIG) -> EngineCacheEntry:
    return runtime.compile_engine(zoo.resolve("xfeat"), config)


def test_the_engine_belongs_to_its_gpu(tmp_path: Path) -> None:
    entry = entry_of(on_double(tmp_path))
    assert (entry.manifest.compute_capability, entry.manifest.device_name) == ("8.7", "Orin")
    with pytest.raises(EngineRejectedError) as caught:
        on_double(tmp_path, gpus=H100).deserialize_engine(entry)
    assert set(caught.value.reasons) == {reasons.COMPUTE_CAPABILITY, reasons.DEVICE}


def test_only_rtx_builds_for_another_gpu(tmp_path: Path) -> None:
    config = replace(CONFIG, options={"compute_capability": "8.9"})
    with pytest.raises(InvalidParameterError, match="only tensorrt_rtx"):
        entry_of(on_double(tmp_path), config)


@pytest.mark.parametrize(
    "options",
    [
        {"optimization_level": "6"},
        {"optimization_level": "high"},
        {"workspace_mib": "0"},
        {"workspace": "1"},
    ],
    ids=str,
)
def test_options_out_of_bounds_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InvalidParameterError):
        entry_of(on_double(tmp_path), replace(CONFIG, options=options))


def test_the_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="device"):
        entry_of(on_double(tmp_path), replace(CONFIG, device="cpu"))


def test_a_gpu_beyond_the_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="shows 1 GPU"):
        entry_of(on_double(tmp_path), replace(CONFIG, device="cuda:1"))


def test_an_unknown_library_is_refused_and_an_absent_one_says_what_to_install() -> None:
    with pytest.raises(InvalidParameterError, match="library"):
        TensorrtRuntime(library="tensorflow")
    if find_tensorrt(library="tensorrt") is not None:
        pytest.skip("tensorrt is installed")
    with pytest.raises(RuntimeUnavailableError, match="cannot import tensorrt") as caught:
        TensorrtRuntime(library="tensorrt")
    assert "pip install tensorrt" in caught.value.hint


def test_the_timing_cache_is_kept_and_a_foreign_one_is_replaced(tmp_path: Path) -> None:
    entry_of(on_double(tmp_path))
    [cache] = (tmp_path / ".timing").iterdir()
    assert cache.read_bytes() == b"learnt"
    cache.write_bytes(b"from elsewhere")
    entry_of(on_double(tmp_path, policy="rebuild"))
    assert cache.read_bytes() == b"learnt"


@pytest.mark.parametrize(
    ("fault", "error"),
    [("no kernel fits", EngineBuildError), ("Cuda out of memory", DeviceOutOfMemoryError)],
)
def test_what_the_builder_says_is_in_the_error(
    tmp_path: Path, fault: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(double.BuilderConfig, "fault", fault)
    with pytest.raises(error, match=fault):
        entry_of(on_double(tmp_path))
    assert not list(tmp_path.glob("*/engine.engine"))


def test_a_report_that_fails_stops_the_build(tmp_path: Path) -> None:
    def report(share: float, what: str) -> None:
        raise OSError("nobody listens")

    with pytest.raises(EngineBuildError, match="stopped"):
        on_double(tmp_path).compile_engine(zoo.resolve("xfeat"), CONFIG, report)


def test_an_interrupted_build_is_told_as_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT meets the builder's C++, where a KeyboardInterrupt would be lost."""
    shares: list[float] = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(
        double.BuilderConfig, "during", staticmethod(lambda: os.kill(os.getpid(), signal.SIGINT))
    )
    with pytest.raises(KeyboardInterrupt):
        on_double(tmp_path).compile_engine(
            zoo.resolve("xfeat"), CONFIG, lambda share, what: shares.append(share)
        )
    assert max(shares) < 0.3  # the builder was stopped, not waited for
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(tmp_path.glob("*/engine.engine"))
    assert not list(tmp_path.glob(".staging*"))


def test_gdi_compile_says_interrupted_and_exits_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        double.BuilderConfig, "during", staticmethod(lambda: os.kill(os.getpid(), signal.SIGINT))
    )
    monkeypatch.setattr(
        "gps_denied_inference.runtimes.create_runtime", lambda *_, **__: on_double(tmp_path)
    )
    words = ["compile", "xfeat", "--runtime", "tensorrt", "--compute-capability", "8.7"]
    assert main([*words, "--width", "96", "--height", "64", "--cache", str(tmp_path)]) == 130
    assert capsys.readouterr().err.strip().endswith("gdi: interrupted")


@pytest.mark.parametrize(
    "raised",
    [KeyboardInterrupt(), SystemExit(3), ConfigurationError("interrupted: shutting down")],
    ids=lambda raised: type(raised).__name__,
)
def test_what_ends_the_caller_ends_the_build_and_is_told_as_it_is(
    tmp_path: Path, raised: BaseException
) -> None:
    """The node's own report raises while the process is ending."""

    def report(share: float, what: str) -> None:
        raise raised

    with pytest.raises(type(raised)) as caught:
        on_double(tmp_path).compile_engine(zoo.resolve("xfeat"), CONFIG, report)
    assert caught.value is raised


def test_tensors_other_than_the_manifests_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = on_double(tmp_path)
    entry = entry_of(runtime)
    monkeypatch.setattr(double.Engine, "get_tensor_shape", lambda self, name: (1,))
    with pytest.raises(EngineLoadError, match="its manifest says"):
        runtime.deserialize_engine(entry)
    assert not double.live_cudas


def test_out_of_memory_while_loading_gives_everything_back(tmp_path: Path) -> None:
    class Small(double.DoubleCuda):
        def device_buffer(self, size: int) -> int:
            if len(self._memory) > 3:
                raise CudaError("cudaMalloc", 2, "cudaErrorMemoryAllocation")
            return super().device_buffer(size)

    runtime = on_double(tmp_path, cuda=Small)
    with pytest.raises(DeviceOutOfMemoryError, match="while loading") as caught:
        runtime.deserialize_engine(entry_of(runtime))
    assert isinstance(caught.value.__cause__, CudaError)
    assert not double.live_cudas


@pytest.mark.parametrize(
    ("code", "error"), [(2, DeviceOutOfMemoryError), (700, InferenceError)], ids=str
)
def test_cuda_errors_while_running_are_mapped(
    tmp_path: Path, code: int, error: type[Exception]
) -> None:
    class Failing(double.DoubleCuda):
        failing = False

        def synchronize(self) -> None:
            super().synchronize()
            if Failing.failing:
                raise CudaError("cudaStreamSynchronize", code, "by the test")

    runtime = on_double(tmp_path, cuda=Failing)
    handle = runtime.deserialize_engine(entry_of(runtime))
    Failing.failing = True
    image = handle.inputs[0].zeros()
    with pytest.raises(error) as caught:
        runtime.infer(handle, {"image": image})
    assert isinstance(caught.value.__cause__, CudaError)
    runtime.release_engine(handle)
    assert not double.live_cudas


def test_release_frees_engine_and_memory(tmp_path: Path) -> None:
    runtime = on_double(tmp_path)
    handle = runtime.deserialize_engine(entry_of(runtime))
    assert len(double.live_cudas) == 1
    assert handle.readback.provider.endswith("cuda_graph")
    runtime.release_engine(handle)
    assert not double.live_cudas


def test_a_cuda_graph_is_left_out_where_not_asked_for(tmp_path: Path) -> None:
    config = replace(CONFIG, cuda_graph=False)
    runtime = on_double(tmp_path)
    handle = runtime.deserialize_engine(entry_of(runtime, config))
    assert "cuda_graph" not in handle.readback.provider
    runtime.release_engine(handle)


def test_the_manifest_on_disk_says_what_was_built(tmp_path: Path) -> None:
    entry = entry_of(on_double(tmp_path))
    text = json.loads(manifest_path(entry.artifact).read_text())
    assert text["runtime_version"] == "tensorrt_double 0.double"
    assert text["builder_flags"] == {"strongly_typed": "true"}
