"""``gdi doctor``: what is installed, which runtimes work, and for the rest what mends them."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from gps_denied_inference.errors import GpsDeniedInferenceError
from gps_denied_inference.runtimes.machine import Availability, Machine
from gps_denied_inference.runtimes.table import broken_entry_points, find, rows
from gps_denied_inference.storage.documents import write_json
from gps_denied_inference.versions import installed_version

HELP = (
    "Say what this machine can run: libraries, GPU, runtimes, models, engine cache, thermal source "
    "and ROS, and for what does not work why, and the command that mends it. --run also loads "
    "XFeat on each runtime and times it; --report FILE does so at several sizes, compares the "
    "answers, and writes a file to send back. Exit code 1 where no runtime works, or one that "
    "should does not."
)

BASE = (
    "numpy", "opencv", "onnx", "filelock", "platformdirs", "threadpoolctl", "simplejpeg",
    "cryptography", "rich", "tqdm",
)  # fmt: skip
"""What the package cannot do without."""

_DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "opencv": (
        "opencv-python-headless",
        "opencv-python",
        "opencv-contrib-python-headless",
        "opencv-contrib-python",
    ),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "cuda-python": ("cuda-bindings", "cuda-python"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt_rtx"),
}
_MODULES = {"opencv": "cv2", "cuda-python": "cuda", "nvidia-ml-py": "pynvml"}
_OPTIONAL = (
    "onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "cuda-python", "nvidia-ml-py", "jtop",
    "rosbags", "matplotlib",
)  # fmt: skip
_RUN_SIZE = (480, 640)
_RUN_PASSES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--run", action="store_true", help="run XFeat on each runtime that works, with timings"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="check and time every runtime that works at three sizes, and write what others need "
        "to know of this hardware as JSON (minutes; no host name, user name or path is in it)",
    )


def run(args: argparse.Namespace) -> int:
    """Examine and print."""
    report = examine(try_runtimes=args.run)
    print(render(report))
    if args.json:
        write_json(args.json, report)
    works = any(row["works"] for row in report["runtimes"] if row["runtime"] != "fake")
    good = works and not report["missing_base"]
    if args.report and not report["missing_base"]:
        good = _write_report(report, args.report) and good
    return 0 if good else 1


def _write_report(report: dict[str, Any], file: Path) -> bool:
    """Measure, print and write; return whether all that works by doctor's account really does."""
    from gps_denied_inference.cli import machine_report

    print("\nruns")
    runs = machine_report.measure(report["runtimes"], say=lambda line: print(f"  ... {line}"))
    print(machine_report.render(runs))
    write_json(file, machine_report.report(report, runs))
    print(f"written: {file}")
    return all(machine_report.passed(run) for run in runs)


def examine(machine: Machine | None = None, *, try_runtimes: bool = False) -> dict[str, Any]:
    """Return everything that is printed, as plain data."""
    machine = machine or Machine()
    packages = {name: package_version(name) for name in (*BASE, *_OPTIONAL)}
    runtimes = [_row(name, device, found) for name, device, found in _ask(machine)]
    if try_runtimes:
        for row in runtimes:
            if row["works"]:
                _try(row)
    return {
        "system": _system(),
        "gpus": [vars(gpu) for gpu in machine.gpus.gpus],
        "gpu_reason": machine.gpus.reason,
        "driver": _driver(),
        "driver_cuda": machine.gpus.driver_cuda,
        "packages": packages,
        "missing_base": [name for name in BASE if not packages[name]],
        "runtimes": runtimes,
        "auto": _selection(machine),
        "models": _models(),
        "cache": _cache(),
        "thermal": _thermal(),
        "ros": _ros(),
    }


def package_version(name: str) -> str:
    """Return the installed version, "unknown version" for a bare module, or "" where absent."""
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        if version := installed_version(distribution):
            return version
    try:
        spec = importlib.util.find_spec(_MODULES.get(name, name))
    except (ImportError, ValueError):
        return ""
    # A specification without a file is a bare folder, such as type stubs leave.
    return "unknown version" if spec is not None and spec.origin is not None else ""


def _ask(machine: Machine) -> list[tuple[str, str, Availability]]:
    """Return (label, device kind, answer) of every runtime; last the packages that bring none."""
    found = [
        (row.label(row.precisions[device][0]), device, row.ask(machine, device))
        for row in rows()
        for device in row.precisions
    ]
    for name, reason in broken_entry_points().items():
        remedy = "mend or remove the package that brings it"
        found.append((name, "any", Availability(False, "", reason, remedy)))
    return found


def _row(runtime: str, device: str, found: Availability) -> dict[str, Any]:
    return {"runtime": runtime, "device": device, **vars(found)}


def _try(row: dict[str, Any]) -> None:
    """Run XFeat on one runtime; a failure turns the row into one that does not work."""
    import numpy as np

    from gps_denied_inference.engines.cache import EngineCache
    from gps_denied_inference.models import zoo
    from gps_denied_inference.runtimes import create_runtime
    from gps_denied_inference.runtimes.contract import BuildConfig

    runtime_name, device = row["runtime"], row["device"]
    half = device == "cuda"
    height, width = _RUN_SIZE
    config = BuildConfig(
        height=height, width=width, device=device, precision="fp16" if half else "fp32"
    )
    image = np.random.default_rng(0).integers(0, 256, (height, width, 1), dtype=np.uint8)
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = zoo.resolve("xfeat", need_weights=find(runtime_name)[0].needs_weights)
            runtime = create_runtime(runtime_name, cache=EngineCache(Path(folder)))
            handle = runtime.deserialize_engine(runtime.compile_engine(model, config))
            times = []
            for _ in range(_RUN_PASSES):
                started = time.perf_counter()
                runtime.infer(handle, {"image": image})
                times.append((time.perf_counter() - started) * 1e3)
            row["ran"] = {
                "provider": handle.readback.provider,
                "device": handle.readback.device,
                "precision": handle.readback.precision,
                "load_s": handle.load_time,
                "p50_ms": float(np.percentile(times, 50)),
            }
            runtime.release_engine(handle)
    except GpsDeniedInferenceError as error:
        row["works"] = False
        row["reason"] = str(error)
        row["remedy"] = getattr(error, "hint", "")


def _selection(machine: Machine) -> dict[str, Any]:
    from gps_denied_inference.runtimes.selection import select

    try:
        chosen = select(machine=machine)
    except GpsDeniedInferenceError as error:
        return {"error": str(error)}
    return {
        "runtime": chosen.runtime,
        "device": chosen.device,
        "precision": chosen.precision,
        "passed_over": [list(pair) for pair in chosen.passed_over],
    }


def _system() -> dict[str, str]:
    try:
        board = Path("/proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    except OSError:
        board = ""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "board": board,
    }


def _driver() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", text)
    return match[0] if match else ""


def _models() -> list[dict[str, Any]]:
    from gps_denied_inference.models import zoo

    rows = []
    for name in zoo.names():
        row: dict[str, Any] = {"name": name, "graph": False, "weights": False, "reason": ""}
        try:
            model = zoo.resolve(name)
        except GpsDeniedInferenceError as error:
            row["reason"] = str(error)
        else:
            row["graph"] = model.graph is not None
            row["weights"] = model.weights is not None or not model.weights_sha256
        rows.append(row)
    return rows


def _cache() -> dict[str, Any]:
    from gps_denied_inference.engines.cache import default_root

    try:
        root = default_root()
    except GpsDeniedInferenceError as error:
        return {"folder": "", "writable": False, "free_bytes": 0, "reason": str(error)}
    existing = root
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    reason = "" if writable else f"{existing} cannot be written: set XDG_CACHE_HOME"
    return {
        "folder": str(root),
        "writable": writable,
        "free_bytes": shutil.disk_usage(existing).free if existing.exists() else 0,
        "reason": reason,
    }


def _thermal() -> dict[str, Any]:
    from gps_denied_inference.thermal import explain_choice

    choice = explain_choice("auto")
    try:
        return {
            "source": choice.source.name,
            "passed_over": [list(pair) for pair in choice.passed_over],
        }
    finally:
        choice.source.close()


def _ros() -> dict[str, Any]:
    def there(name: str) -> bool:
        try:
            return importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            return False

    messages = there("gps_denied_inference.msg")
    remedy = ""
    if not there("rclpy"):
        remedy = "source /opt/ros/jazzy/setup.bash, or run the source tree's tools/bootstrap"
    elif not messages:
        remedy = "colcon build --packages-select gps_denied_inference, then source its setup.bash"
    return {
        "rclpy": there("rclpy"),
        "messages": messages,
        "cv_bridge": there("cv_bridge"),
        "distro": os.environ.get("ROS_DISTRO", ""),
        "middleware": os.environ.get("RMW_IMPLEMENTATION", ""),
        "remedy": remedy,
    }


def render(report: dict[str, Any]) -> str:
    """Return the report as lines for people."""
    system, lines = report["system"], []
    board = f", {system['board']}" if system["board"] else ""
    lines.append(f"system    {system['platform']}, Python {system['python']}{board}")
    for gpu in report["gpus"]:
        lines.append(
            f"gpu       cuda:{gpu['index']} {gpu['name']}, compute capability"
            f" {gpu['compute_capability']}, {gpu['memory'] / (1 << 30):.1f} GiB,"
            f" driver {report['driver'] or 'unknown'} (CUDA {report['driver_cuda']})"
        )
    if not report["gpus"]:
        lines.append(f"gpu       none: {report['gpu_reason']}")
    present = [f"{name} {version}" for name, version in report["packages"].items() if version]
    absent = [name for name, version in report["packages"].items() if not version]
    lines.append(f"packages  {', '.join(present)}")
    if absent:
        lines.append(f"          absent: {', '.join(absent)}")
    if report["missing_base"]:
        names = " ".join(report["missing_base"]).replace("opencv", "opencv-python-headless")
        lines.append(f"          mend: python3 -m pip install {names}")
    lines += ["", "runtimes"]
    lines += [line for row in report["runtimes"] for line in _runtime_lines(row)]
    lines += ["", *_auto_lines(report["auto"]), "", *_rest_lines(report)]
    return "\n".join(lines)


def _runtime_lines(row: dict[str, Any]) -> list[str]:
    head = f"  {'works' if row['works'] else '  no '}  {row['runtime']} ({row['device']})"
    if row["works"]:
        ran = row.get("ran")
        detail = (
            f": {ran['p50_ms']:.2f} ms a frame, loads in {ran['load_s']:.2f} s,"
            f" {ran['provider']} on {ran['device']}, {ran['precision']}"
            if ran
            else f": {row['version']}"
        )
        return [head + detail]
    lines = [f"{head}: {row['reason']}"]
    if row["remedy"]:
        lines.append(f"           mend: {row['remedy']}")
    return lines


def _auto_lines(auto: dict[str, Any]) -> list[str]:
    if "error" in auto:
        return [f"auto      nothing: {auto['error']}"]
    lines = [f"auto      {auto['runtime']} on {auto['device']}, {auto['precision']}"]
    return lines + [f"          passed over {name}: {why}" for name, why in auto["passed_over"]]


def _rest_lines(report: dict[str, Any]) -> list[str]:
    lines = []
    for model in report["models"]:
        graph = "graph" if model["graph"] else "no graph"
        weights = "weights" if model["weights"] else "no weights"
        hint = "" if model["weights"] else f" (gdi models fetch {model['name']})"
        text = model["reason"] or f"{graph}, {weights}{hint}"
        lines.append(f"model     {model['name']}: {text}")
    cache = report["cache"]
    free = f"{cache['free_bytes'] / 1e9:.1f} GB free"
    lines.append(f"cache     {cache['folder'] or 'none'}, {cache['reason'] or free}")
    thermal = report["thermal"]
    lines.append(f"thermal   source {thermal['source']}")
    lines += [f"          passed over {name}: {why}" for name, why in thermal["passed_over"]]
    ros = report["ros"]
    if ros["remedy"]:
        lines += [
            "ros       the node cannot run: "
            + ("rclpy is absent" if not ros["rclpy"] else "this package's messages are not built"),
            f"          mend: {ros['remedy']}",
        ]
    else:
        bridge = "with" if ros["cv_bridge"] else "without"
        distro = ros["distro"] or "distribution not named"
        lines.append(f"ros       {distro}, messages built, {bridge} cv_bridge")
    return lines
