"""What a search on the map costs the frames beside it, in one process, by schedstat::

    tools/with_env python -m benchmarks.tracks_beside_search --seconds 60

Turns of eight frames, tracked while no search runs and while one always does. A frame's time has
three parts: on a processor, ready to run without one, and blocked, which is waiting for Python's
lock. On a computer that does other work the second part grows; the two others still hold.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.scene_map import make_scene_map, truth
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.locator import Locator
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.localization.prior import Prior, heading_and_gravity
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

FRAMES = 8
COMMON = {"device": "cpu", "max_keypoints": 1000, "image_width": 640, "image_height": 480,
          "threads": 1}  # fmt: skip


@dataclass
class Load:
    """A search that runs again and again while it is wanted."""

    locator: Locator
    flight: SimulatedFlight
    images: list[npt.NDArray[np.uint8]]
    niceness: int
    searches: int = 0

    def __post_init__(self) -> None:
        self.wanted, self.ended = threading.Event(), threading.Event()
        self.idle = threading.Event()

    def run(self) -> None:
        """Search until ``ended``."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self.niceness)
        matrix = [float(value) for value in self.flight.camera_matrix.ravel()]
        camera = CameraModel.from_info("", matrix, [], 640, 480)
        while not self.ended.is_set():
            self.idle.set()
            if not self.wanted.wait(0.05):
                continue
            self.idle.clear()
            index = self.searches % len(self.images)
            self.locator.locate(self.images[index], prior(self.flight, index), camera)
            self.searches += 1


def prior(flight: SimulatedFlight, index: int) -> Prior:
    """Return what is known of a frame in flight."""
    heading, gravity = heading_and_gravity(flight.camera_to_enu(index))
    place, height = truth(flight, index), flight.pose(index).height
    return Prior(
        position=(place.real, place.imag), position_sigma=100.0, height=height,
        height_sigma=0.05 * height, heading=heading, heading_sigma=0.05,
        down=tuple(float(value) for value in gravity), down_sigma=0.01,  # type: ignore[arg-type]
    )  # fmt: skip


def scheduled() -> npt.NDArray[np.float64]:
    """Return this thread's s in all, on a processor and ready for one."""
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    run, ready = path.read_text().split()[:2]
    return np.array([time.perf_counter(), int(run) * 1e-9, int(ready) * 1e-9])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--niceness", type=int, default=10, help="of the search (10, as in the node)"
    )
    args = parser.parse_args()
    flight = SimulatedFlight(240)
    images = [cv2.cvtColor(flight.render(i), cv2.COLOR_RGB2GRAY) for i in range(FRAMES)]
    with tempfile.TemporaryDirectory() as folder:
        path = make_scene_map(Path(folder), {"device": "cpu", "threads": 1})
        session = InferenceSession(Settings.from_mapping({**COMMON, "task": "track"}))
        session.open()
        localizing = {**COMMON, "task": "localize", "map_file": str(path)}
        locator = Locator(Settings.from_mapping(localizing))
        load, thread = Load(locator, flight, images, args.niceness), SerialThread("search")
        ended = thread.submit(load.run)
        parts: dict[bool, list[npt.NDArray[np.float64]]] = {False: [], True: []}
        stamp, end = 10**18, time.monotonic() + args.seconds
        while time.monotonic() < end:
            for searching in (False, True):
                if searching:
                    load.wanted.set()
                for image in images:
                    before, stamp = scheduled(), stamp + 50_000_000
                    session.process(image, stamp, None)
                    parts[searching].append(1e3 * (scheduled() - before))
                load.wanted.clear()
                time.sleep(0.1)
                load.idle.wait()
        load.ended.set()
        ended.result()
        thread.close()
        locator.close()
        session.close()
    for searching, rows in parts.items():
        total, run, ready = np.mean(rows, axis=0)
        name, blocked = "searching" if searching else "alone", total - run - ready
        print(f"{name:10} {len(rows)} frames: on a processor {run:.1f} ms, ready without one "
              f"{ready:.1f} ms, blocked {blocked:.1f} ms")  # fmt: skip
    print(f"{load.searches} searches")


if __name__ == "__main__":
    main()
