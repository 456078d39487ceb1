"""ONNX Runtime on a real NVIDIA GPU: what runs, that it is right, and that it is given back.

python3 -m pytest test/gpu/test_gpu_onnx_runtime.py -q -rs
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from device_memory import device_memory_used
from onnx import TensorProto, helper

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import (
    DeviceOutOfMemoryError,
    ReadbackMismatchError,
    RuntimeUnavailableError,
)
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig, EngineHandle, TensorSpec
from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.runtimes.onnx_runtime import session as ort_session
from gps_denied_inference.runtimes.onnx_runtime.runtime import OrtRuntime
from gps_denied_inference.runtimes.onnx_runtime.session import OrtSession, SessionSettings

Arrays = dict[str, np.ndarray]

SURVEY = survey()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("cuda_provider"),
]

CPU = BuildConfig(device="cpu")
GPU = BuildConfig(device="cuda:0")
CYCLES = 50
RESIDUAL_LIMIT = 16 << 20


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="session")
def runtime(folder: Path) -> OrtRuntime:
    return OrtRuntime(cache=EngineCache(folder))


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    flight = SimulatedFlight(frames=120)
    return [flight.render(index)[:, :, 1:2].copy() for index in (0, 17, 55)]


@pytest.fixture(scope="session")
def reference(runtime: OrtRuntime, frames: list[np.ndarray]) -> list[Arrays]:
    handle = load(runtime, CPU)
    outputs = [runtime.infer(handle, {"image": frame}) for frame in frames]
    runtime.release_engine(handle)
    return outputs


@pytest.fixture(scope="session", autouse=True)
def figures() -> Iterator[dict[str, Any]]:
    """What was measured; printed at the end, and written to ``$GDI_GPU_REPORT`` where set."""
    measured: dict[str, Any] = {
        "gpu": dataclasses.asdict(SURVEY.gpus[0]) if SURVEY.gpus else None,
        "driver_cuda": SURVEY.driver_cuda,
        "onnxruntime": onnxruntime.__version__,
    }
    yield measured
    text = json.dumps(measured, indent=2)
    print(f"\n{text}")
    if os.environ.get("GDI_GPU_REPORT"):
        Path(os.environ["GDI_GPU_REPORT"]).write_text(text + "\n", encoding="utf-8")


def load(runtime: OrtRuntime, config: BuildConfig) -> EngineHandle:
    return runtime.deserialize_engine(runtime.compile_engine(zoo.resolve("xfeat"), config))


def agreement(found: Arrays, wanted: Arrays, radius: float) -> tuple[float, float]:
    """Return the share of ``wanted`` keypoints met within ``radius`` px, and the mean cosine."""
    a, b = int(found["count"][0]), int(wanted["count"][0])
    distance = np.linalg.norm(wanted["keypoints"][:b, None] - found["keypoints"][None, :a], axis=2)
    nearest = distance.argmin(axis=1)
    met = distance.min(axis=1) <= radius
    cosine = np.sum(wanted["descriptors"][:b] * found["descriptors"][:a][nearest], axis=1)
    return float(met.mean()), float(cosine[met].mean())


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize(
    ("precision", "radius", "same", "alike"),
    [("fp32", 0.5, 0.99, 0.999), ("fp16", 1.0, 0.97, 0.995)],
)
def test_runs_on_the_gpu_and_agrees_with_the_cpu(
    runtime: OrtRuntime,
    frames: list[np.ndarray],
    reference: list[Arrays],
    figures: dict[str, Any],
    precision: str,
    radius: float,
    same: float,
    alike: float,
    cuda_graph: bool,
) -> None:
    config = dataclasses.replace(GPU, precision=precision, cuda_graph=cuda_graph)
    handle = load(runtime, config)
    back = handle.readback
    assert (back.provider, back.precision) == ("CUDAExecutionProvider", precision)
    assert back.device == f"cuda:0 {SURVEY.gpus[0].name}"
    shares, cosines, times = [], [], []
    for frame, wanted in zip(frames, reference, strict=True):
        outputs = runtime.infer(handle, {"image": frame})
        assert outputs["count"][0] > 500
        share, cosine = agreement(outputs, wanted, radius)
        shares.append(share)
        cosines.append(cosine)
    for _ in range(300):
        started = time.perf_counter()
        runtime.infer(handle, {"image": frames[0]})
        times.append(time.perf_counter() - started)
    label = f"{precision}{' with CUDA graph' if cuda_graph else ''}"
    figures[label] = {
        "keypoints_same": shares,
        "descriptor_cosine": cosines,
        "infer_p50_ms": 1e3 * statistics.median(times),
        "infer_p95_ms": 1e3 * sorted(times)[int(0.95 * len(times))],
    }
    runtime.release_engine(handle)
    assert min(shares) >= same, f"{label}: {shares}"
    assert min(cosines) >= alike, f"{label}: {cosines}"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_replayed_graph_sees_every_new_frame(
    runtime: OrtRuntime, frames: list[np.ndarray], precision: str
) -> None:
    config = dataclasses.replace(GPU, precision=precision)
    replayed = load(runtime, config)
    plain = load(runtime, dataclasses.replace(config, cuda_graph=False))
    kept = []
    for frame in [*frames, frames[0]]:
        first = runtime.infer(replayed, {"image": frame})
        kept.append((first, {name: array.copy() for name, array in first.items()}))
        share, cosine = agreement(first, runtime.infer(plain, {"image": frame}), 0.01)
        assert share >= 0.99
        assert cosine >= 0.999
    assert agreement(kept[0][0], kept[1][0], 0.01)[0] < 0.5, "two different frames gave the same"
    for given, copy in kept:  # later passes wrote into none of them
        for name, array in given.items():
            np.testing.assert_array_equal(array, copy[name])
    runtime.release_engine(replayed)
    runtime.release_engine(plain)


def test_other_threads_than_the_loading_one(
    runtime: OrtRuntime, frames: list[np.ndarray], figures: dict[str, Any]
) -> None:
    """The node loads in one thread and infers in others: none captures a graph of its own."""
    handle = load(runtime, dataclasses.replace(GPU, precision="fp16"))
    wanted = [runtime.infer(handle, {"image": frame}) for frame in frames]
    used = device_memory_used()
    shares: list[float] = []
    first_pass: list[float] = []

    def work() -> None:
        for number in range(20):
            started = time.perf_counter()
            outputs = runtime.infer(handle, {"image": frames[number % 3]})
            if number == 0:
                first_pass.append(time.perf_counter() - started)
            shares.append(agreement(outputs, wanted[number % 3], 0.01)[0])

    for _ in range(3):  # as three activations would
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    more = device_memory_used() - used
    runtime.release_engine(handle)
    figures["other_threads"] = {
        "first_infer_ms": [1e3 * value for value in first_pass],
        "more_device_memory_bytes": more,
    }
    assert len(shares) == 120
    assert min(shares) >= 0.99
    assert more <= 2 << 20


def test_releasing_one_engine_leaves_the_other(
    runtime: OrtRuntime, frames: list[np.ndarray]
) -> None:
    first, second = load(runtime, GPU), load(runtime, GPU)
    before = runtime.infer(second, {"image": frames[0]})
    runtime.release_engine(first)
    share, _ = agreement(runtime.infer(second, {"image": frames[0]}), before, 0.01)
    assert share >= 0.99
    runtime.release_engine(second)


def test_fifty_cycles_give_the_memory_back(
    runtime: OrtRuntime, frames: list[np.ndarray], figures: dict[str, Any]
) -> None:
    config = dataclasses.replace(GPU, precision="fp16")
    entry = runtime.compile_engine(zoo.resolve("xfeat"), config)

    def cycle() -> float:
        handle = runtime.deserialize_engine(entry)
        runtime.infer(handle, {"image": frames[0]})
        used.append(device_memory_used())
        runtime.release_engine(handle)
        return handle.load_time

    used: list[int] = []
    for _ in range(2):  # context, libraries and their handles stay with the process
        cycle()
    before = device_memory_used()
    times = sorted(cycle() for _ in range(CYCLES))
    after = device_memory_used()
    figures["cycles"] = {
        "count": CYCLES,
        "residual_bytes": after - before,
        "loaded_bytes": max(used) - before,
        "load_p50_s": times[CYCLES // 2],
        "load_p95_s": times[int(0.95 * CYCLES)],
    }
    assert max(used) > before, "a loaded engine showed no memory: nothing was measured"
    assert after - before <= RESIDUAL_LIMIT
    assert times[int(0.95 * CYCLES)] <= 2.0


def test_out_of_memory_is_its_own_error_and_leaves_the_gpu_usable(
    folder: Path, runtime: OrtRuntime, frames: list[np.ndarray]
) -> None:
    starved = OrtRuntime(cache=EngineCache(folder), gpu_memory_limit=1 << 20)
    with pytest.raises(DeviceOutOfMemoryError, match="cuda:0 has no memory left") as raised:
        load(starved, GPU)
    assert raised.value.__cause__ is not None
    handle = load(runtime, GPU)
    assert runtime.infer(handle, {"image": frames[0]})["count"][0] > 500
    runtime.release_engine(handle)


def test_node_that_cuda_cannot_run_is_refused() -> None:
    """Det has a CPU kernel only."""
    spec = TensorSpec("matrix", (3, 3), "float32")
    result = TensorSpec("value", (1,), "float32")
    graph = helper.make_graph(
        [
            helper.make_node("Det", ["matrix"], ["number"]),
            helper.make_node("Reshape", ["number", "shape"], ["value"]),
        ],
        "det",
        [helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [3, 3])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [1])],
        initializer=[onnx.numpy_helper.from_array(np.array([1], np.int64), "shape")],
    )
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    OrtSession(data, SessionSettings("cpu"), (spec,), (result,)).close()
    with pytest.raises(ReadbackMismatchError, match="would run on the CPU"):
        OrtSession(data, SessionSettings("cuda"), (spec,), (result,))


def test_gpu_that_is_not_there(runtime: OrtRuntime) -> None:
    with pytest.raises(RuntimeUnavailableError, match="cuda:63"):
        load(runtime, dataclasses.replace(GPU, device="cuda:63"))


def test_tensorrt_provider_runs_or_says_what_is_missing(
    folder: Path, frames: list[np.ndarray], reference: list[Arrays]
) -> None:
    runtime = OrtRuntime(cache=EngineCache(folder), provider="tensorrt")
    try:
        handle = load(runtime, GPU)
    except (ReadbackMismatchError, RuntimeUnavailableError) as error:
        if "libnvinfer" not in str(error):
            raise
        pytest.skip(f"no TensorRT 10 here: {error}")
    assert handle.readback.provider == ort_session.PROVIDERS["tensorrt"]
    outputs = runtime.infer(handle, {"image": frames[0]})
    share, cosine = agreement(outputs, reference[0], 1.0)
    runtime.release_engine(handle)
    assert share >= 0.97
    assert cosine >= 0.995
