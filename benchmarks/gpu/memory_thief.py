"""Fly the node while another process takes and frees the GPU's memory at random, and keep books.

On a machine with an NVIDIA GPU, a CUDA build of ONNX Runtime, PyTorch and the built package::

    tools/with_env python benchmarks/gpu/memory_thief.py --frames FOLDER --seconds 300 --json FILE

The thief holds between nothing and all that is free, anew every half second. The node tracks at
30 Hz; every minute it is cleaned up and configured again while the thief goes on, which may be
refused for want of memory and is then tried again. Before each cleanup every frame since configure
has to be answered or counted by reason, or this fails.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test" / "support"))

from camera_process import CameraProcess
from node_process import driven

from benchmarks.contest import machine
from gps_denied_inference.storage.documents import write_json

PERIOD = 60.0
"""s between one cleanup and the next."""


def steal(seed: int) -> None:
    """Take and free memory until killed."""
    import torch

    rng = random.Random(seed)
    while True:
        free, _ = torch.cuda.mem_get_info()
        try:
            held = torch.empty(int(free * rng.random() ** 0.25), dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            continue
        time.sleep(rng.uniform(0.05, 0.5))
        del held
        torch.cuda.empty_cache()


def main() -> int:
    """Fly, print, write the books."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=Path, help="folder of images")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--domain", type=int, default=89, help="ROS domain (default: 89)")
    parser.add_argument("--steal", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steal is not None:
        steal(options.steal)
    if options.frames is None:
        parser.error("--frames is needed")
    os.environ["ROS_DOMAIN_ID"] = str(options.domain)
    refused = cycles = taken = answered = 0
    dropped: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = {
            "task": "track", "runtime": "onnxruntime", "device": "cuda:0", "status_rate": 4.0,
            "engine_cache_directory": str(folder / "cache"),
        }  # fmt: skip
        thief = subprocess.Popen([sys.executable, __file__, "--steal", "0"])
        try:
            with (
                driven(folder, parameters=parameters) as (_, driver),
                CameraProcess(
                    folder, rate=30.0, frames=round((options.seconds + 30.0) * 30.0), width=640,
                    height=480, images=options.frames.resolve(),
                ),
            ):  # fmt: skip
                end = time.monotonic() + options.seconds
                while time.monotonic() < end:
                    while not driver.configure(120.0):
                        refused += 1
                    assert driver.activate()
                    cycles += 1
                    time.sleep(max(0.0, min(PERIOD, end - time.monotonic())))
                    assert driver.deactivate()
                    books = driver.wait_for_status(
                        lambda s: s.frames_in == s.frames_out + s.frames_dropped, "closed books"
                    )
                    taken += books.frames_in
                    answered += books.frames_out
                    dropped.update(dict(zip(books.drop_reasons, books.drop_counts, strict=True)))
                    assert driver.cleanup()
                driver.shutdown()
        finally:
            thief.kill()
            thief.wait()
    report = {
        "seconds": options.seconds, "machine": machine(), "configured": cycles,
        "refused_for_want_of_memory": refused, "in": taken, "answered": answered,
        "dropped": {reason: int(count) for reason, count in dropped.items() if count},
    }  # fmt: skip
    if options.json is not None:
        write_json(options.json, report)
    print(report)
    return int(answered == 0)


if __name__ == "__main__":
    raise SystemExit(main())
