"""Facts about the machine for ``bench_h100.py``, what its figures are held to, and their table."""

from __future__ import annotations

import platform
import shlex
import sys
from datetime import datetime, timezone
from typing import Any

from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.versions import installed_version

# name, bound, and whether the value must be at most or at least that
XFEAT_BOUNDS = (
    ("latency.onnxruntime fp16 graph.p50_ms", 0.9, "at most"),
    ("speedup over the authors' code", 5.0, "at least"),
    ("load.onnxruntime fp16 graph.p95_s", 2.0, "at most"),
    ("load.pytorch_fp16 graph.p95_s", 2.0, "at most"),
    ("memory.pytorch_fp16 eager.residual_mib", 1.0, "at most"),
    ("memory.pytorch_fp16 graph.residual_mib", 1.0, "at most"),
    ("memory.onnxruntime fp16 graph.residual_mib", 16.0, "at most"),
    ("agreement.onnxruntime fp16.same_within_1px", 0.97, "at least"),
    ("agreement.onnxruntime fp16.cosine", 0.995, "at least"),
    ("agreement.pytorch_fp16.same_within_1px", 0.97, "at least"),
    ("agreement.pytorch_fp16.cosine", 0.995, "at least"),
)
ALIKED_BOUNDS = (
    ("memory.onnxruntime fp32 graph.residual_mib", 16.0, "at most"),
    ("agreement.onnxruntime fp32 to the CPU.alike_worst_frame", 0.99, "at least"),
    ("agreement.onnxruntime fp32 to authors without TF32.alike_worst_frame", 0.99, "at least"),
)
"""``alike``: within half a pixel, with a descriptor whose cosine is at least 0.999.

Not of every descriptor: ALIKED reads the patch around the whole pixel of a keypoint, and one that
lies on the border of two may be read from the other after a change of 1e-4 px.

Those on the authors hold where their code loads: see ``authors_not_timed`` of the report."""


def describe(gpu: Gpu, found: GpuSurvey) -> dict[str, Any]:
    """Return GPU, driver, versions, command and date."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "onnxruntime-gpu", "onnx", "numpy", "cuda-bindings", "tensorrt_rtx"):
        versions[name] = installed_version(name) or "absent"
    driver = "unknown"
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:
        driver = f"unknown ({error})"
    return {
        "gpu": gpu.name,
        "compute_capability": gpu.compute_capability,
        "memory_bytes": gpu.memory,
        "driver": driver,
        "driver_cuda": found.driver_cuda,
        "versions": versions,
        "command": shlex.join(["python3", *sys.argv]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def judge(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the report against the model's bounds."""
    verdicts = []
    bounds = XFEAT_BOUNDS if report["machine"]["model"] == "xfeat" else ALIKED_BOUNDS
    for name, bound, sense in bounds:
        if "to authors" in name and "authors" not in report:
            continue
        value: Any = report
        if name.startswith("speedup"):
            value = report.get("speedup over the authors' code")
        else:
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        kept = value is not None and (value <= bound if sense == "at most" else value >= bound)
        verdicts.append({"name": name, "value": value, "bound": f"{sense} {bound}", "kept": kept})
    return verdicts


def print_table(report: dict[str, Any]) -> None:
    """Print the figures and whether each bound is kept."""
    machine = report["machine"]
    print(f"\n{machine['model']}, {machine['gpu']}, driver {machine['driver']}")
    print(
        f"{'':24}{'p50 ms':>9}{'p95 ms':>9}{'load p95 s':>12}{'residual MiB':>14}{'kept MiB':>10}"
    )
    for name, found in report["latency"].items():
        load = report["load"].get(name, {}).get("p95_s", float("nan"))
        memory = report["memory"].get(name, {})
        print(
            f"{name:24}{found['p50_ms']:9.3f}{found['p95_ms']:9.3f}{load:12.3f}"
            f"{memory.get('residual_mib', float('nan')):14.2f}"
            f"{memory.get('kept_by_the_library_mib', float('nan')):10.1f}"
        )
    for name, found in report["agreement"].items():
        within, same = next(iter(found.items()))
        print(f"{name:42}{within} {same:.4f}  cosine {found['cosine']:.5f}")
    if "authors_not_timed" in report:
        print(f"authors not timed: {report['authors_not_timed']}")
    if "speedup over the authors' code" in report:
        speedup = report["speedup over the authors' code"]
        print(f"speedup over the authors' code: {speedup:.2f}")
    for name, text in report.get("tensorrt_rtx", {}).items():
        print(f"tensorrt_rtx {name}: {text[:300]}")
    for verdict in report["bounds"]:
        value = verdict["value"]
        shown = "absent" if value is None else f"{value:.4g}"
        word = "ok  " if verdict["kept"] else "MISS"
        print(f"{word} {verdict['name']}: {shown} ({verdict['bound']})")
