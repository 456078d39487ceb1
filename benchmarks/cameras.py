"""What more cameras on one engine cost: GPU memory, and frames per second of each.

    PYTHONPATH=. python3 benchmarks/cameras.py --device cuda --json cameras.json
    PYTHONPATH=. python3 benchmarks/cameras.py --device cuda --task track --json cameras_track.json

Needs no ROS. XFeat, 640x480, K = 1000, on simulated flights, one for each camera. Every measurement
is a process of its own with one session, as a node has it; processes of one, two and four cameras
take turns, round by round, so that all meet the same machine. A round's frames of one instant are
answered together as fast as it goes; what is timed is all of a frame's work but ROS. Memory is what
the process holds on the GPU after its last frame, CUDA's own context included, as NVML counts it;
where NVML does not list the process (in a container), what all processes hold, less what they held
before.

The defaults are 18 processes, each with its own start of CUDA: some minutes. Every process says on
stderr what it gave.

Ratios are to one camera alone in the same round; the report has their medians. Exits with 1 where
on a GPU two or four cameras do not keep to ``BOUNDS``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.contest import machine
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.session import Frame, InferenceSession
from gps_denied_inference.settings import Settings

COUNTS = (1, 2, 4)
BOUNDS = {2: {"memory": 1.2, "rate": 0.6}, 4: {"memory": 1.2, "rate": 0.35}}
"""On a GPU: memory at most, rate per camera at least, both as ratios to one camera alone."""
WIDTH, HEIGHT = 640, 480
FRAMES = 40
PERIOD_NS = 33_333_333
MIB = float(1 << 20)


def main() -> int:
    """Measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--task", default="extract", choices=("extract", "track"))
    parser.add_argument("--keypoints", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=0, help="engine_batch; 0 = automatic")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="that each process answers")
    parser.add_argument("--cache", type=Path, help="engine cache; default: one that goes again")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = race(options, options.cache or Path(folder))
    kept = judge(report, options.device)
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if kept else 1


def race(options: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """Let processes of each number of cameras take turns; return the report."""
    command = [sys.executable, str(Path(__file__).resolve()), "--cache", str(cache)]
    for name in ("runtime", "device", "precision", "task", "keypoints", "batch", "seconds"):
        command += [f"--{name}", str(getattr(options, name))]
    render(cache)
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    rounds: list[dict[int, dict[str, Any]]] = []
    for number in range(options.rounds + 1):
        measured = {}
        for count in COUNTS:
            done = subprocess.run(
                [*command, "--measure", str(count)],
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"the process of {count} cameras ended with {done.returncode}")
            measured[count] = json.loads(done.stdout.splitlines()[-1])
            print(
                f"round {number} of {options.rounds}, {count} camera(s): "
                f"{measured[count]['rate_per_camera_hz']:.1f} Hz each",
                file=sys.stderr,
                flush=True,
            )
        if number > 0:  # the round before has built the engines
            rounds.append(measured)
    return summed_up(options, rounds)


def flight_file(seed: int) -> str:
    """Return the name of a flight's file in the folder of the engine cache."""
    return f"flight_{seed}.npy"


def render(folder: Path) -> None:
    """Write each camera's flight, (FRAMES, H, W) uint8: no process has to render it again."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(max(COUNTS)):
        frames = [
            cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY) if frame.image.ndim == 3 else frame.image
            for frame in SimulatedFlight(FRAMES, WIDTH, HEIGHT, seed=seed)
        ]
        np.save(folder / flight_file(seed), np.stack(frames))


def summed_up(
    options: argparse.Namespace, rounds: list[dict[int, dict[str, Any]]]
) -> dict[str, Any]:
    """Return the medians over the rounds, and the ratios to one camera of the same round."""

    def median(count: int, name: str) -> float | None:
        values = [each[count][name] for each in rounds]
        return None if None in values else statistics.median(values)

    def ratio(count: int, name: str) -> float | None:
        pairs = [(each[count][name], each[1][name]) for each in rounds]
        if any(None in pair or not pair[1] for pair in pairs):
            return None
        return float(statistics.median(mine / alone for mine, alone in pairs))

    names = ("rate_per_camera_hz", "infer_ms", "together_ms", "cpu_ms_per_frame", "gpu_memory_mib")
    return {
        "task": options.task,
        "size": [WIDTH, HEIGHT],
        "keypoints": options.keypoints,
        "rounds": len(rounds),
        "seconds": options.seconds,
        "engine": rounds[0][1]["engine"],
        "memory_of": rounds[0][1]["memory_of"],
        "machine": machine(),
        "cameras": {
            str(count): {
                "batch": rounds[0][count]["batch"],
                **{name: median(count, name) for name in names},
                "memory_ratio": ratio(count, "gpu_memory_mib"),
                "rate_ratio": ratio(count, "rate_per_camera_hz"),
                "infer_ratio": ratio(count, "infer_ms"),
            }
            for count in COUNTS
        },
    }


def judge(report: dict[str, Any], device: str) -> bool:
    """Put into the report what is kept of ``BOUNDS``; return whether all is, or none applies."""
    if not device.startswith("cuda"):
        return True
    kept = {}
    for count, bounds in BOUNDS.items():
        row = report["cameras"][str(count)]
        memory, rate = row["memory_ratio"], row["rate_ratio"]
        kept[f"{count} cameras: memory <= {bounds['memory']} of one"] = (
            memory is not None and memory <= bounds["memory"]
        )
        kept[f"{count} cameras: rate per camera >= {bounds['rate']} of one alone"] = (
            rate >= bounds["rate"]
        )
    report["kept"] = kept
    return all(kept.values())


def show(report: dict[str, Any]) -> None:
    """Print the table."""

    def text(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    print(f"{report['engine']}, task {report['task']}, memory of {report['memory_of']}")
    print("cameras  batch  rate/camera  ratio  infer ms  ratio  CPU ms/frame  GPU MiB  ratio")
    for count, row in report["cameras"].items():
        print(
            f"{count:>7}  {row['batch']:>5}  {text(row['rate_per_camera_hz'], 1):>8} Hz  "
            f"{text(row['rate_ratio'], 3):>5}  {text(row['infer_ms'], 3):>8}  "
            f"{text(row['infer_ratio'], 2):>5}  {text(row['cpu_ms_per_frame'], 2):>12}  "
            f"{text(row['gpu_memory_mib'], 0):>7}  {text(row['memory_ratio'], 3):>5}"
        )
    for bound, kept in report.get("kept", {}).items():
        print(f"{'kept' if kept else 'NOT KEPT'}: {bound}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer frames of ``options.measure`` cameras in this process; return what it took."""
    count = options.measure
    memory = GpuMemory() if options.device.startswith("cuda") else None
    settings = Settings.from_mapping(
        {
            "camera_names": [f"camera{i}" for i in range(count)],
            "engine_batch": min(options.batch, count),
            "runtime": options.runtime,
            "device": options.device,
            "precision": options.precision,
            "task": options.task,
            "max_keypoints": options.keypoints,
            "image_width": WIDTH,
            "image_height": HEIGHT,
            "engine_cache_directory": str(options.cache),
        }
    )
    flights = [np.load(options.cache / flight_file(seed)) for seed in range(count)]
    session = InferenceSession(settings)
    session.open()
    try:
        index, stamp = 0, 0

        def answer() -> dict[str, float]:
            nonlocal index, stamp
            stamp += PERIOD_NS
            # There and back again, so that tracks go on.
            place = index % (2 * FRAMES - 2)
            place = place if place < FRAMES else 2 * FRAMES - 2 - place
            index += 1
            answers = session.process_together(
                {i: Frame(flight[place], stamp, None) for i, flight in enumerate(flights)}
            )
            timings: dict[str, float] = {}
            for one in answers.values():
                if isinstance(one, Exception):
                    raise one
                timings = one.timings
            return timings

        for _ in range(30):
            answer()
        infer, together = [], []
        begin, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < options.seconds:
            before = time.perf_counter()
            infer.append(answer()["infer"])
            together.append(time.perf_counter() - before)
        elapsed, cpu = time.perf_counter() - begin, time.process_time() - cpu
        readback = session.readback
        held, whose = memory.held() if memory is not None else (None, "nobody: no GPU is used")
        return {
            "engine": f"{settings.model} on {readback.runtime} {readback.version} "
            f"({readback.provider}, {readback.device}, {readback.precision})",
            "batch": session.handle.entry.config.batch,
            "rate_per_camera_hz": len(together) / elapsed,
            "infer_ms": 1e3 * statistics.median(infer),
            "together_ms": 1e3 * statistics.median(together),
            "cpu_ms_per_frame": 1e3 * cpu / len(together) / count,
            "gpu_memory_mib": None if held is None else held / MIB,
            "memory_of": whose,
        }
    finally:
        session.close()


class GpuMemory:
    """GPU memory that this process holds; to be made before it uses CUDA. Needs nvidia-ml-py."""

    def __init__(self) -> None:
        import pynvml

        self._nvml = pynvml
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        self._before = self._of_everyone()

    def held(self) -> tuple[int, str]:
        """Return bytes, and in words whose they are."""
        mine = [
            int(found.usedGpuMemory)
            for gpu in self._gpus
            for found in self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
            if found.pid == os.getpid() and found.usedGpuMemory is not None
        ]
        if mine:
            return sum(mine), "the process"
        return self._of_everyone() - self._before, "everyone, less what was held before"

    def _of_everyone(self) -> int:
        return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(gpu).used) for gpu in self._gpus)


if __name__ == "__main__":
    sys.exit(main())
