"""ALIKED on a real NVIDIA GPU with ONNX Runtime: as on the CPU, in fp32 only, and given back.

GDI_TEST_DATA=FOLDER python3 -m pytest test/gpu/test_gpu_aliked.py -q -rs

FOLDER holds real frames in ``caliterra/images``; what needs no real frames runs without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from device_memory import device_memory_used

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig, EngineHandle
from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.runtimes.onnx_runtime.runtime import OrtRuntime
from gps_denied_inference.runtimes.selection import select

Arrays = dict[str, np.ndarray]

SURVEY = survey()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("cuda_provider"),
]

NAMES = ("aliked-t16", "aliked-n16")
CPU, GPU = "cpu", "cuda:0"
FRAMES = 6
CYCLES = 20
RESIDUAL_LIMIT = 16 << 20  # bytes


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> OrtRuntime:
    return OrtRuntime(cache=EngineCache(tmp_path_factory.mktemp("aliked-engines")))


@pytest.fixture(scope="module")
def real_frames(shared_data: Path) -> list[np.ndarray]:
    folder = shared_data / "caliterra" / "images"
    if not folder.is_dir():
        pytest.skip(f"no real frames in {folder}")
    paths = sorted(folder.iterdir())
    frames = []
    for path in paths[:: max(1, len(paths) // FRAMES)][:FRAMES]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA)
        frames.append(np.ascontiguousarray(small[:, :, None]))
    assert len(frames) == FRAMES
    return frames


@pytest.fixture(scope="module")
def simulated_frame() -> np.ndarray:
    return SimulatedFlight(frames=2).render(0)[:, :, 1:2].copy()


def load(runtime: OrtRuntime, name: str, config: BuildConfig) -> EngineHandle:
    return runtime.deserialize_engine(runtime.compile_engine(zoo.resolve(name), config))


def answers(
    runtime: OrtRuntime, name: str, config: BuildConfig, frames: list[np.ndarray]
) -> Iterator[Arrays]:
    handle = load(runtime, name, config)
    try:
        for frame in frames:
            yield runtime.infer(handle, {"image": frame})
    finally:
        runtime.release_engine(handle)


def alike(found: Arrays, wanted: Arrays) -> float:
    """Return the share of the larger set that is the same: within 0.5 px, cosine from 0.999.

    Not asked of every descriptor: ALIKED reads the patch around the whole pixel of a keypoint, and
    one that lies on the border of two may be read from the other after a change of 1e-4 px.
    """
    a, b = int(found["count"][0]), int(wanted["count"][0])
    distance = np.linalg.norm(wanted["keypoints"][:b, None] - found["keypoints"][None, :a], axis=2)
    nearest = distance.argmin(axis=1)
    cosine = np.sum(wanted["descriptors"][:b] * found["descriptors"][:a][nearest], axis=1)
    return float(((distance.min(axis=1) <= 0.5) & (cosine >= 0.999)).sum() / max(a, b))


@pytest.mark.parametrize("cuda_graph", [True, False], ids=["graph", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_finds_on_the_gpu_what_it_finds_on_the_cpu(
    runtime: OrtRuntime, real_frames: list[np.ndarray], name: str, cuda_graph: bool
) -> None:
    on_cpu = answers(runtime, name, BuildConfig(device=CPU), real_frames)
    on_gpu = answers(runtime, name, BuildConfig(device=GPU, cuda_graph=cuda_graph), real_frames)
    for number, (wanted, found) in enumerate(zip(on_cpu, on_gpu, strict=True)):
        assert wanted["count"][0] > 900
        assert alike(found, wanted) >= 0.99, f"frame {number}"
        assert np.all(np.diff(found["scores"][: int(found["count"][0])]) <= 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_runs_on_the_gpu_in_fp32(
    runtime: OrtRuntime, simulated_frame: np.ndarray, name: str
) -> None:
    """Loading refuses a graph of which a node would run on the CPU; the handle says what runs."""
    handle = load(runtime, name, BuildConfig(device=GPU))
    back = handle.readback
    assert (back.provider, back.precision) == ("CUDAExecutionProvider", "fp32")
    assert back.device == f"{GPU} {SURVEY.gpus[0].name}"
    assert runtime.infer(handle, {"image": simulated_frame})["count"][0] > 100
    runtime.release_engine(handle)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_refused_and_auto_is_fp32(runtime: OrtRuntime, name: str) -> None:
    precisions = zoo.get(name).precisions
    chosen = select("onnxruntime", GPU, precisions=precisions)
    assert (chosen.runtime, chosen.device, chosen.precision) == ("onnxruntime", GPU, "fp32")
    with pytest.raises(InvalidParameterError, match=r"'fp32' for ALIKED.*float16 cannot hold"):
        load(runtime, name, BuildConfig(device=GPU, precision="fp16"))


def test_replayed_graph_sees_every_new_frame(
    runtime: OrtRuntime, simulated_frame: np.ndarray
) -> None:
    handle = load(runtime, "aliked-t16", BuildConfig(device=GPU))
    first = runtime.infer(handle, {"image": simulated_frame})
    turned = runtime.infer(handle, {"image": simulated_frame[::-1, ::-1].copy()})
    again = runtime.infer(handle, {"image": simulated_frame})
    runtime.release_engine(handle)
    assert alike(again, first) >= 0.99
    assert alike(turned, first) < 0.5, "two different frames gave the same"


@pytest.mark.parametrize("name", NAMES)
def test_cycles_give_the_memory_back(
    runtime: OrtRuntime, simulated_frame: np.ndarray, name: str
) -> None:
    entry = runtime.compile_engine(zoo.resolve(name), BuildConfig(device=GPU))

    def cycle() -> None:
        handle = runtime.deserialize_engine(entry)
        runtime.infer(handle, {"image": simulated_frame})
        used.append(device_memory_used())
        runtime.release_engine(handle)

    used: list[int] = []
    for _ in range(2):  # context, libraries and their handles stay with the process
        cycle()
    before = device_memory_used()
    for _ in range(CYCLES):
        cycle()
    after = device_memory_used()
    assert max(used) > before, "a loaded engine showed no memory: nothing was measured"
    assert after - before <= RESIDUAL_LIMIT
