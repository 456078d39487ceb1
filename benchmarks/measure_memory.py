"""What each state of the node costs in memory: the table in docs/operating.md.

    tools/with_env python benchmarks/measure_memory.py --cycles 40 --json memory.json

Starts a real ``inference_node`` process (XFeat, 640x480, K = 1000), takes it through its states and
reads the process's memory in each from ``/proc`` (Linux), so other processes do not count. Nothing
leaves the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", "87")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test" / "support"))

from node_process import Driver, driven, image_message, textured_frames

FRAMES = 200


def memory(process: int) -> dict[str, float]:
    """Return MiB resident now, private to the process now, and resident at most so far."""
    status = Path(f"/proc/{process}/status").read_text()
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()

    def kibibytes(text: str, name: str) -> int:
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1])

    private = kibibytes(rollup, "Private_Clean") + kibibytes(rollup, "Private_Dirty")
    return {
        "resident": kibibytes(status, "VmRSS") / 1024,
        "private": private / 1024,
        "peak": kibibytes(status, "VmHWM") / 1024,
    }


def run_frames(driver: Driver, count: int) -> None:
    """Let the node answer ``count`` frames of the engine's size."""
    frames = textured_frames(480, 640)
    goal = len(driver.features) + count
    while len(driver.features) < goal:
        before = len(driver.features)
        driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
        end = time.monotonic() + 2.0
        while len(driver.features) == before and time.monotonic() < end:
            time.sleep(0.002)


def measure(
    runtime: str, device: str, cycles: int, folder: Path
) -> list[tuple[str, dict[str, float]]]:
    """Return (state, memory) in the order in which the node went through the states."""
    rows: list[tuple[str, dict[str, float]]] = []
    parameters = {"runtime": runtime, "device": device, "thermal_source": "none"}
    with driven(folder, parameters=parameters) as (node, driver):

        def note(state: str) -> None:
            rows.append((state, memory(node.process.pid)))

        def must(succeeded: bool, what: str) -> None:
            if not succeeded:
                raise SystemExit(f"{what} failed; the node's output:\n{node.output}")

        driver.state()
        note("unconfigured, fresh")
        must(driver.configure(600.0), "configure")
        note("inactive, engine just built")
        must(driver.cleanup(), "cleanup")
        note("unconfigured again")
        must(driver.configure(), "configure")
        note("inactive, engine loaded from the cache")
        must(driver.activate(), "activate")
        note("active, no frame yet")
        run_frames(driver, FRAMES)
        note(f"active, after {FRAMES} frames")
        must(driver.deactivate(), "deactivate")
        note("inactive again")
        must(driver.cleanup(), "cleanup")
        note("unconfigured, after flying")
        for cycle in range(1, cycles + 1):
            must(driver.configure(), "configure")
            must(driver.cleanup(), "cleanup")
            note(f"unconfigured, cycle {cycle}")
        must(driver.shutdown(), "shutdown")
        code = node.wait_for_exit(30.0)
        must(code == 0, f"clean exit (code {code})")
    return rows


def main() -> int:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--cycles", type=int, default=5, help="of configure and cleanup, at the end"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.runtime, args.device, args.cycles, Path(folder))
    print("| state | resident, MiB | private, MiB | most so far, MiB |\n|---|---|---|---|")
    for state, found in rows:
        print(
            f"| {state} | {found['resident']:.0f} | {found['private']:.0f} | {found['peak']:.0f} |"
        )
    if args.json:
        rounded = {state: {k: round(v, 1) for k, v in found.items()} for state, found in rows}
        args.json.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
