"""Fly the node as the process that it is, over DDS, and write what it reports of itself as JSON.

On a machine with an NVIDIA GPU, a CUDA build of ONNX Runtime and the built package::

    tools/with_env python benchmarks/gpu/node_report.py --json node.json

A camera process sends successive frames of a simulated flight, there and back again, at 30 Hz,
640x480 and 1280x720, to an ``inference_node`` on ``cuda:0``, in FP16 and FP32, for the tasks
extract and track (mutual nearest neighbours) and, once, match (LighterGlue). One more run tracks at
200 Hz, and a last one sends as fast as the node may want it: the rate that it keeps up. Each run is
a fresh process with the shipped Fast DDS profile; the first of a size and precision builds its
engine, the next finds it in the cache. Counts, latencies per stage, provider, device and precision
are the node's own, from ``~/status``. Takes about five minutes.

``--frames FOLDER`` sends a folder's images instead; where they lie too far apart to be tracked,
task track is measured at looking for what is not there. ``--device cpu --seconds 2`` is a rehearsal
on a machine without a GPU. Nothing leaves the machine.
Exits with 1 where a run failed; the others are written all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test" / "support"))

import cv2
import numpy as np
from bench_report import describe
from camera_process import CameraProcess
from gpu_memory import gpu_memory
from node_process import ROOT, Driver, NodeProcess, driven
from rclpy.utilities import get_rmw_implementation_identifier

from benchmarks.contest import machine
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.msg import FeatureArray, InferenceStatus
from gps_denied_inference.runtimes.gpus import survey

K = 1000
RATE = 30.0
FAST = 200.0
"""Hz, of a camera whose every frame is to be tracked all the same."""
PROFILE = str(ROOT / "config" / "fastdds_large_images.xml")
FRAMES = 60
"""Of the simulated flight."""
ENGINE_SIZES = {(640, 480): (640, 480), (1280, 720): (1280, 704)}
"""Image -> engine, px: the engine's sides are multiples of 32, the node resizes."""


@dataclass(frozen=True)
class Run:
    """One flight.

    Attributes:
        task: the node's parameter; "match" is matched by LighterGlue against the first image.
        precision: "fp16" or "fp32".
        size: width and height of the camera's images, px.
        rate: of the camera, Hz.
        flood: the rate is more than the node can answer.
    """

    task: str
    precision: str
    size: tuple[int, int] = (640, 480)
    rate: float = RATE
    flood: bool = False

    def __str__(self) -> str:
        return f"{self.task} {self.precision} {self.size[0]}x{self.size[1]} {self.rate:g} Hz"


def plan(device: str, highest_rate: float) -> list[Run]:
    """Return the flights, those that build an engine before those that use it."""
    precisions = ("fp32",) if device == "cpu" else ("fp16", "fp32")
    runs = [
        Run(task, precision, size)
        for size in ENGINE_SIZES
        for precision in precisions
        for task in ("extract", "track")
    ]
    runs.append(Run("match", precisions[0]))
    runs.append(Run("track", precisions[0], rate=FAST))
    runs.append(Run("extract", precisions[0], rate=highest_rate, flood=True))
    return runs


def images_of(run: Run, options: argparse.Namespace) -> Path:
    """Return the folder whose images a run's camera sends."""
    if options.frames is not None:
        return Path(options.frames)
    return Path(options.flights) / "x".join(map(str, run.size))


def render(folder: Path) -> None:
    """Write successive frames of the simulated flight, in each size."""
    for width, height in ENGINE_SIZES:
        images = folder / f"{width}x{height}"
        images.mkdir(parents=True)
        for index, frame in enumerate(SimulatedFlight(FRAMES, width, height)):
            cv2.imwrite(str(images / f"{index:03d}.png"), frame.image[..., ::-1])


def parameters_of(run: Run, options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    width, height = ENGINE_SIZES[run.size]
    parameters = {
        "task": run.task,
        "runtime": "onnxruntime",
        "device": options.device,
        "precision": run.precision,
        "image_width": width,
        "image_height": height,
        "max_keypoints": K,
        "status_rate": 4.0,
        "engine_cache_directory": str(cache),
    }
    if run.task == "match":
        parameters["matcher"] = "lighterglue"
        parameters["reference_file"] = str(sorted(images_of(run, options).iterdir())[0])
    return parameters


def configure(driver: Driver, process: NodeProcess, cache: Path) -> dict[str, Any]:
    """Configure a fresh node; return how long it took, and whether engines were built for it."""
    driver.state()  # it is there, and answers
    before = set(cache.rglob("*.onnx"))
    started = time.perf_counter()
    if not driver.configure(300.0):
        raise RuntimeError(f"configure failed: {process.output}")
    seconds = time.perf_counter() - started
    built = len(set(cache.rglob("*.onnx")) - before)
    return {"configure_s": seconds, "engines_built": built}


def processor_seconds(process: int) -> float:
    """Return the CPU time that a process has used so far, all threads, in s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50 and p95 of seconds, in ms."""
    p50, p95 = np.percentile(values, [50, 95]) * 1e3
    return {"p50": float(p50), "p95": float(p95), "n": len(values)}


def listen(driver: Driver) -> tuple[list[int], list[float]]:
    """Collect each answer's keypoint count, and s from the frame's stamp to its arrival here."""
    counts: list[int] = []
    ages: list[float] = []

    def heard(answer: FeatureArray) -> None:
        stamp = answer.header.stamp
        ages.append(time.time() - stamp.sec - 1e-9 * stamp.nanosec)
        counts.append(answer.count)
        driver.features.clear()  # a flood's answers are a gigabyte

    driver.node.create_subscription(FeatureArray, f"{driver.target.full_name}/features", heard, 100)
    return counts, ages


def read_back(status: InferenceStatus, run: Run, device: str) -> dict[str, str]:
    """Return what runs, as the node read it from the loaded engine; refuse anything else."""
    found = {
        name: str(getattr(status, name))
        for name in (
            "runtime",
            "runtime_version",
            "provider",
            "device",
            "precision",
            "model",
            "model_sha256",
            "engine_sha256",
        )
    }
    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    place = found["device"].split(" ")[0]
    if (found["provider"], place, found["precision"]) != (provider, device, run.precision):
        raise RuntimeError(f"{run} was asked for on {device}, but {found} runs")
    return found


def fly(run: Run, options: argparse.Namespace, folder: Path, cache: Path) -> dict[str, Any]:
    """Make one flight; return its part of the report."""
    seconds = options.seconds / 2 if run.flood else options.seconds
    parameters = parameters_of(run, options, cache)
    with driven(folder, parameters=parameters) as (process, driver):
        pid = process.process.pid
        counts, ages = listen(driver)
        report: dict[str, Any] = configure(driver, process, cache)
        if not driver.activate():
            raise RuntimeError(f"activate failed: {process.output}")
        with CameraProcess(
            folder,
            rate=run.rate,
            frames=round(seconds * run.rate),
            width=run.size[0],
            height=run.size[1],
            images=images_of(run, options),
        ) as camera:
            driver.wait_until(lambda: bool(counts), "the first answer", 60.0)
            begin, used = time.perf_counter(), processor_seconds(pid)
            sent = camera.result(3 * seconds + 60)
            cores = (processor_seconds(pid) - used) / (time.perf_counter() - begin)
        status = settled(driver)
        if options.device != "cpu":
            with gpu_memory(pid) as (read, whose):
                report["gpu_memory"] = {"bytes": read(), "of": whose}
        if not driver.shutdown():
            raise RuntimeError(f"shutdown failed: {process.output}")
        process.wait_for_exit(10)
    stages = zip(status.stages, status.latency_p50, status.latency_p95, strict=True)
    return {
        **report,
        "engine_load_s": status.engine_load_time,
        "engine": f"{status.engine_width}x{status.engine_height}",
        "read_back": read_back(status, run, options.device),
        "camera": {"rate_hz": run.rate, **sent},
        "frames": {
            "sent": sent["sent"],
            "in": status.frames_in,
            "out": status.frames_out,
            "dropped": dict(zip(status.drop_reasons, status.drop_counts, strict=True)),
            "never_heard_of": sent["sent"] - status.frames_in,
            "received_by_subscriber": len(counts),
        },
        # n frames take n periods: the camera counts from the first one to the last one.
        "answered_hz": status.frames_out / (sent["seconds"] + 1.0 / run.rate),
        "keypoints_mean": float(np.mean(counts)),
        "latency_ms": {stage: {"p50": 1e3 * p50, "p95": 1e3 * p95} for stage, p50, p95 in stages},
        # A camera that is told to send more than it can does not stamp what it sends.
        "stamp_to_subscriber_ms": None if run.flood else percentiles(ages),
        "cpu_cores_used": cores,
    }


def settled(driver: Driver) -> InferenceStatus:
    """Return the first status of a node that has no frame in work any more.

    A gap in the camera's numbers is counted half a second later: see ``accounting.SETTLING``.
    """
    later = len(driver.statuses) + 4
    driver.wait_until(lambda: len(driver.statuses) >= later, "a second of statuses")
    return driver.wait_for_status(
        lambda s: s.frames_in == s.frames_out + s.frames_dropped, "the books to be closed"
    )


def commit() -> str:
    """Return what is checked out, "unknown" outside a clone."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Return the machine, the versions and the command."""
    found = survey()
    return {
        **machine(),
        **(describe(found.gpus[0], found) if found.gpus else {"no_gpu": found.reason}),
        "ros": os.environ.get("ROS_DISTRO", "unknown"),
        "rmw": get_rmw_implementation_identifier(),
        "dds_profile": Path(PROFILE).name,
        "commit": options.commit or commit(),
        "image": "mono8",
        "images": FRAMES if options.frames is None else len(list(options.frames.iterdir())),
        "source": "simulated flight" if options.frames is None else options.frames.name,
        "max_keypoints": K,
    }


def print_row(name: str, run: dict[str, Any]) -> None:
    frames, latency = run["frames"], run["latency_ms"]
    shown = ("convert", "infer", "publish", "end_to_end")
    stages = " ".join(
        f"{stage} {latency[stage]['p50']:.2f}/{latency[stage]['p95']:.2f}" for stage in shown
    )
    print(
        f"{name}: configured in {run['configure_s']:.2f} s ({run['engines_built']} built), "
        f"{frames['sent']} sent, {frames['in']} in, {frames['out']} out, {frames['dropped']}, "
        f"{run['answered_hz']:.1f} Hz; p50/p95 ms: {stages}; {run['cpu_cores_used']:.2f} cores",
        flush=True,
    )


def attempt(work: Callable[[], dict[str, Any]], name: str, report: dict[str, Any]) -> None:
    """Put what a run gave into the report, or why it failed: the others are flown all the same."""
    try:
        report["runs"][name] = work()
        print_row(name, report["runs"][name])
    except Exception as error:
        report["failed"][name] = f"{type(error).__name__}: {error}"
        print(f"{name}: FAILED: {error}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--frames", type=Path, help="folder of images (default: a simulated flight)"
    )
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for a rehearsal")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each flight (default: 20)")
    parser.add_argument(
        "--highest-rate", type=float, default=500.0, help="Hz, of the last run (default: 500)"
    )
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument("--domain", type=int, default=88, help="ROS domain (default: 88)")
    parser.add_argument("--commit", default="", help="what is checked out, where git cannot say")
    options = parser.parse_args()
    if options.frames is not None:
        options.frames = options.frames.resolve()
        if not options.frames.is_dir() or not any(options.frames.iterdir()):
            parser.error(f"no images in {options.frames}")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(options.domain)
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ[name] = PROFILE

    runs = [run for run in plan(options.device, options.highest_rate) if options.only in str(run)]
    if not runs:
        parser.error(f"no run's name holds '{options.only}'")
    report: dict[str, Any] = {"machine": facts(options), "runs": {}, "failed": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options.flights = folder / "flights"
        if options.frames is None:
            render(options.flights)
        for run in runs:
            attempt(lambda r=run: fly(r, options, folder, folder / "engines"), str(run), report)
            # After each: what was flown is kept where the whole is stopped.
            options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
