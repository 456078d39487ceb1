"""Features and tracks keep their rate while frames are looked for on the map. ``-s`` prints it.

Two nodes, one that only tracks and one that localizes as well, take turns over the same frames,
each frame sent as soon as the one before is answered.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")

from localizing_process import Heard, localizing
from node_process import LONG_TESTS

from gps_denied_inference.demo.simulation import SimulatedFlight

ROUNDS = 16 if LONG_TESTS else 6
LEAST_PROCESSORS = 3  # the node alone keeps two busy
FRAMES = 40
SETTLE = 5
"""Frames of a turn that do not count: the first after activation."""
BUSY = 0.25
"""Share of its frames' time that the node alone waits for a processor: above it others have it."""


@dataclass
class Turn:
    """s of all frames, and s that the node's threads waited for a processor meanwhile."""

    seconds: float
    waited: float


def waited(pid: int) -> float:
    """Return the s that a process's threads have been ready to run and did not."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except OSError:  # the thread has ended
            continue
    return total * 1e-9


def turn(heard: Heard, images: list[np.ndarray]) -> Turn:
    """Fly frames as fast as they are answered."""
    driver = heard.driver
    assert driver.activate()
    begin, before = 0.0, 0.0
    for index, image in enumerate(images):
        if index == SETTLE:
            begin, before = time.perf_counter(), waited(driver.target.process.pid)
        count, sent = len(driver.features), time.perf_counter()
        heard.publish(image=image)
        while len(driver.features) == count:
            assert time.perf_counter() < sent + 20.0, driver.target.output
            time.sleep(0.0005)
    took = Turn(time.perf_counter() - begin, waited(driver.target.process.pid) - before)
    assert driver.deactivate()
    return took


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's schedstat")
@pytest.mark.skipif(
    not LONG_TESTS and (os.cpu_count() or 1) < LEAST_PROCESSORS,
    reason=f"{LEAST_PROCESSORS} processors, or GDI_LONG_TESTS=1: the node alone keeps two busy",
)
def test_features_and_tracks_keep_their_rate(tmp_path: Path, capsys: Any) -> None:
    flight = SimulatedFlight(frames=240)
    images = [cv2.cvtColor(flight.render(i), cv2.COLOR_RGB2GRAY) for i in range(FRAMES + SETTLE)]
    plain, on = tmp_path / "off", tmp_path / "on"
    plain.mkdir()
    on.mkdir()
    usual: dict[str, Any] = {"max_keypoints": 1000, "fix_rate": 2.0, "infer_timeout": 30.0}
    turns: dict[str, list[Turn]] = {"without": [], "with": []}
    with (
        localizing(plain, "/off", **{**usual, "task": "track", "map_file": ""}) as (_, without),
        localizing(on, "/on", **usual) as (_, having),
    ):
        nodes = {"without": without, "with": having}
        for heard in nodes.values():
            assert heard.driver.configure(300.0), heard.driver.target.output
        for number in range(ROUNDS):
            for name in list(nodes)[:: 1 if number % 2 else -1]:
                turns[name].append(turn(nodes[name], images))
    ratios = [a.seconds / b.seconds for a, b in zip(turns["without"], turns["with"], strict=True)]
    rates = {name: FRAMES / np.median([t.seconds for t in taken]) for name, taken in turns.items()}
    busy = sum(t.waited for t in turns["without"]) / sum(t.seconds for t in turns["without"])
    said = (
        f"{rates['without']:.1f} frames/s without localization, {rates['with']:.1f} with; ratio of "
        f"the turns {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); "
        f"{len(having.status)} frames searched, {len(having.fixes)} fixes; without it, the node "
        f"waited for a processor for {busy:.0%} of the time"
    )
    with capsys.disabled():
        print(f"\n{said}")
    assert len(having.status) >= 3
    if busy > BUSY:
        pytest.skip(f"no processor is free for the search beside the node: {said}")
    assert np.median(ratios) >= 0.9
