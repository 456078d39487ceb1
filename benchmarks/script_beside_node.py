"""Is extraction in a plain Python script as fast as in the node?

Turn by turn, a fresh process each: a script of a dozen lines on the public interface, without
a single environment variable, and the real node, driven over DDS. Both see the same frames, one at
a time, with the same engine, and each says itself how long its extraction took: the script by
``FrameResult.timings``, the node by ``~/status``. From the built tree::

    tools/with_env python -m benchmarks.script_beside_node --json FILE

Exits with 1 where the script's median is more than 1.1 times the node's. Frames come at one rate
to both: on a busy machine a process that rests between them is served sooner than one that never
does. The CPU time that each process took a frame (the node's with receiving and publishing) is
given beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.contest import machine
from gps_denied_inference.clients.demo_driver import fly
from gps_denied_inference.demo.frame import Frame, SourceKind
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.errors import FrameError, GpsDeniedInferenceError, InferenceError
from gps_denied_inference.storage.documents import write_json

LIMIT = 1.1
PERIOD_NS = 40_000_000
"""Between two frames' stamps: 25 Hz."""
ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import numpy
from gps_denied_inference import InferenceSession, Settings
session = InferenceSession(Settings.from_mapping(json.loads(sys.argv[3])))
session.open()
took, cpu, begin = [], time.process_time(), time.monotonic()
for number, image in enumerate(numpy.load(sys.argv[2])):
    time.sleep(max(0.0, begin + number / float(sys.argv[4]) - time.monotonic()))
    result = session.process(image, stamp_ns=(number + 1) * 40_000_000, tag=None)
    took.append(result.timings["extract"])
cpu = (time.process_time() - cpu) / len(took)
session.close()
print(json.dumps({"p50": numpy.quantile(took, 0.5), "p95": numpy.quantile(took, 0.95), "cpu": cpu}))
"""
"""Arguments: where the package lies, the frames (.npy), the settings (JSON), their rate (Hz)."""


class GreyFrames:
    """The frames of both contestants as a source of the demo's driver."""

    kind: SourceKind = "folder"
    name = "frames"
    note = ""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self.notes: list[str] = []
        self.refused: dict[str, FrameError] = {}
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            yield Frame(index, (index + 1) * PERIOD_NS, image, str(index))

    def move(self, start: int, end: int, points: npt.NDArray[np.floating]) -> None:
        """Return None: the true motion does not matter here."""

    def surfaces(self, index: int, points: npt.NDArray[np.floating]) -> None:
        """Return None, likewise."""


def turn_of_script(frames: Path, settings: dict[str, Any], rate: float) -> dict[str, float]:
    """Let a fresh process extract; return p50, p95 and CPU time a frame, s."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(frames), json.dumps(settings), str(rate)],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InferenceError(f"the script failed: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def turn_of_node(
    images: npt.NDArray[np.uint8], settings: dict[str, Any], rate: float, log: Path
) -> dict[str, float]:
    """Let a fresh node extract; return its own p50 and p95, and its CPU time a frame, s."""
    used: list[tuple[int, float]] = []

    def note(what: str, answered: int) -> None:
        if what == "flying":
            used.append((answered, _cpu_of_children()))

    flight = fly(GreyFrames(images), settings, log, lambda index, features: None, rate, note)
    if flight.answered < len(images) / 2:
        raise InferenceError(f"the node answered {flight.answered} of {len(images)} frames: {log}")
    p50, p95 = flight.status.stages["extract"]
    (first, before), (last, after) = used[0], used[-1]
    return {"p50": p50, "p95": p95, "cpu": (after - before) / (last - first)}


def _cpu_of_children() -> float:
    """Return the CPU time, s, of this process's living children."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2]
            ticks += sum(map(int, fields.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(
    images: npt.NDArray[np.uint8], task: str, rate: float, rounds: int, folder: Path
) -> dict[str, Any]:
    """Take turns, ``rounds`` each; return what each took and the ratios, script over node.

    Args:
        images: (N, H, W) uint8.
        task: as the node's parameter.
        rate: Hz, of the frames.
        rounds: turns of each.
        folder: for the engine, the frames and the node's log.
    """
    height, width = images.shape[1:]
    settings = {
        "task": task, "image_width": width, "image_height": height,
        "engine_cache_directory": str(folder / "engines"),
    }  # fmt: skip
    frames = folder / "frames.npy"
    np.save(frames, images)
    np.save(folder / "one.npy", images[:1])
    turn_of_script(folder / "one.npy", settings, rate)  # builds the engine that both load
    turns: dict[str, list[dict[str, float]]] = {"script": [], "node": []}
    for number in range(rounds):
        order = ("script", "node") if number % 2 == 0 else ("node", "script")
        for who in order:
            took = (
                turn_of_script(frames, settings, rate)
                if who == "script"
                else turn_of_node(images, settings, rate, folder / "node.log")
            )
            turns[who].append(took)
            figures = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in took.items())
            print(f"{task} {number} {who:<6} {figures} ms", flush=True)
    middle = {
        who: {name: statistics.median(t[name] for t in taken) for name in taken[0]}
        for who, taken in turns.items()
    }
    return {
        "turns_s": turns,
        "median_s": middle,
        "ratio": {name: middle["script"][name] / middle["node"][name] for name in middle["node"]},
        "ratio_by_round": [
            {name: one[name] / other[name] for name in one}
            for one, other in zip(turns["script"], turns["node"], strict=True)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["extract", "track"], metavar="TASK")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each (default 4)")
    parser.add_argument("--frames", type=int, default=60, help="of a turn (default 60)")
    parser.add_argument("--rate", type=float, default=5.0, help="of the frames, Hz (default 5)")
    parser.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    options = parser.parse_args(arguments)
    flight = SimulatedFlight(frames=options.frames)
    images = np.stack(
        [cv2.cvtColor(flight.render(i), cv2.COLOR_RGB2GRAY) for i in range(options.frames)]
    )
    report: dict[str, Any] = {
        "machine": machine(),
        "frames": len(images),
        "rate": options.rate,
        "limit": LIMIT,
    }
    with tempfile.TemporaryDirectory() as name:
        for task in options.tasks:
            folder = Path(name) / task
            folder.mkdir()
            report[task] = compare(images, task, options.rate, options.rounds, folder)
            ratio = report[task]["ratio"]
            print(
                f"{task}: script / node p50 {ratio['p50']:.3f}, p95 {ratio['p95']:.3f}, "
                f"CPU a frame {ratio['cpu']:.3f}"
            )
    if options.json:
        write_json(options.json, report)
    return int(any(report[task]["ratio"]["p50"] > LIMIT for task in options.tasks))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GpsDeniedInferenceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
