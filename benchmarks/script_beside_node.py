"""Is extraction in a plain Python script as fast as in the node?

Side by side, a fresh process each: a script of a dozen lines on the public interface, without a
single environment variable, and the real node, driven over DDS. Both load the same engine, and the
frames go to them in turn, one at a time: first to the script, then to the node, so that whatever
else the machine does meets both alike. Each says itself how long its extraction took: the script by
``FrameResult.timings``, the node by ``~/status``. From the built tree::

    tools/with_env python -m benchmarks.script_beside_node --json FILE

Exits with 1 where the script's median is more than 1.1 times the node's. The CPU time that each
process took a frame (the node's with receiving and publishing) is given beside.
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
images = numpy.load(sys.argv[2])
session = InferenceSession(Settings.from_mapping(json.loads(sys.argv[3])))
session.open()
print("open", flush=True)
for line in sys.stdin:
    number, cpu = int(line), time.process_time()
    result = session.process(images[number], stamp_ns=(number + 1) * 40_000_000, tag=None)
    print(result.timings["extract"], time.process_time() - cpu, flush=True)
session.close()
"""
"""Arguments: where the package lies, the frames (.npy), the settings (JSON)."""


class Script:
    """The script as a process that answers one frame after the other; a context manager.

    Args:
        frames: .npy of (N, H, W) uint8.
        settings: of the session, by name.
    """

    def __init__(self, frames: Path, settings: dict[str, Any]) -> None:
        self.extractions: list[float] = []
        self.cpu: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(ROOT), str(frames), json.dumps(settings)],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._read()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()

    def answer(self, number: int) -> None:
        """Let it extract from a frame."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        extraction, cpu = map(float, self._read().split())
        self.extractions.append(extraction)
        self.cpu.append(cpu)

    def _read(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise InferenceError(f"the script ended with exit code {self._process.wait()}")
        return line


class SharedFrames:
    """Frames for the demo's driver, each of which the script answers before the node gets it."""

    kind: SourceKind = "folder"
    name = "frames"
    note = ""

    def __init__(self, images: npt.NDArray[np.uint8], script: Script) -> None:
        self.notes: list[str] = []
        self.refused: dict[str, FrameError] = {}
        self._images = images
        self._script = script

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            self._script.answer(index)
            yield Frame(index, (index + 1) * PERIOD_NS, image, str(index))

    def move(self, start: int, end: int, points: npt.NDArray[np.floating]) -> None:
        """Return None: the true motion does not matter here."""

    def surfaces(self, index: int, points: npt.NDArray[np.floating]) -> None:
        """Return None, likewise."""


def measure(
    images: npt.NDArray[np.uint8], settings: dict[str, Any], folder: Path
) -> dict[str, dict[str, float]]:
    """Fly the frames past a fresh script and a fresh node; return p50, p95 and CPU a frame, s."""
    with Script(folder / "frames.npy", settings) as script:
        used: list[tuple[int, float]] = []

        def note(what: str, answered: int) -> None:
            if what == "flying":
                used.append((answered, _cpu_of_children(script.pid)))

        source, log = SharedFrames(images, script), folder / "node.log"
        flight = fly(source, settings, log, lambda index, features: None, report=note)
    if flight.answered < len(images) / 2:
        raise InferenceError(f"the node answered {flight.answered} of {len(images)} frames")
    p50, p95 = flight.status.stages["extract"]
    (first, before), (last, after) = used[0], used[-1]
    return {
        "script": {
            "p50": float(np.quantile(script.extractions, 0.5)),
            "p95": float(np.quantile(script.extractions, 0.95)),
            "cpu": statistics.mean(script.cpu),
        },
        "node": {"p50": p50, "p95": p95, "cpu": (after - before) / (last - first)},
    }


def _cpu_of_children(but: int) -> float:
    """Return the CPU time, s, of this process's living children but the one named."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            if int(child) != but:
                fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")
                ticks += sum(map(int, fields[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(images: npt.NDArray[np.uint8], task: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure ``rounds`` times; return what each took and the ratios, script over node.

    Args:
        images: (N, H, W) uint8.
        task: as the node's parameter.
        rounds: fresh processes, that many times.
        folder: for the engine, the frames and the node's log.
    """
    height, width = images.shape[1:]
    settings = {
        "task": task, "image_width": width, "image_height": height,
        "engine_cache_directory": str(folder / "engines"),
    }  # fmt: skip
    np.save(folder / "frames.npy", images)
    Script(folder / "frames.npy", settings).__exit__()  # builds the engine that both load
    turns = []
    for number in range(rounds):
        turns.append(measure(images, settings, folder))
        for who, took in turns[-1].items():
            figures = ", ".join(f"{name} {1e3 * value:.1f}" for name, value in took.items())
            print(f"{task} {number} {who:<6} {figures} ms", flush=True)
    ratios = [
        {name: turn["script"][name] / turn["node"][name] for name in turn["node"]} for turn in turns
    ]
    return {
        "turns_s": turns,
        "ratios": ratios,
        "ratio": {name: statistics.median(r[name] for r in ratios) for name in ratios[0]},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["extract", "track"], metavar="TASK")
    parser.add_argument("--rounds", type=int, default=4, help="fresh processes (default 4 times)")
    parser.add_argument("--frames", type=int, default=60, help="of a round (default 60)")
    parser.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    options = parser.parse_args(arguments)
    flight = SimulatedFlight(frames=options.frames)
    images = np.stack(
        [cv2.cvtColor(flight.render(i), cv2.COLOR_RGB2GRAY) for i in range(options.frames)]
    )
    report: dict[str, Any] = {"machine": machine(), "frames": len(images), "limit": LIMIT}
    with tempfile.TemporaryDirectory() as name:
        for task in options.tasks:
            folder = Path(name) / task
            folder.mkdir()
            report[task] = compare(images, task, options.rounds, folder)
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
