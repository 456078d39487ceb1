"""Compressed frames that cost a decoder minutes or gigabytes: refused by a real node, in time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import cv2
import hostile_images as hostile
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from lifecycle_msgs.msg import Transition
from node_process import Driver, NodeProcess, driven, textured_frames
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage

SMALL = np.full((240, 320, 3), 90, np.uint8)
HOSTILE = {
    "20,000 scans": ("too_large", hostile.jpeg_of_many_scans(20_000, 4000, 3000)),
    "16 bits, 100 MP": ("too_large", hostile.png(9999, 10000, 16)),
    "100 MP in 631 bytes": (
        "too_large",
        hostile.jpeg_claiming(hostile.encode(".jpg", SMALL[:8, :8]), 9999, 9999),
    ),
    "damaged": (
        "corrupt",
        hostile.damaged(hostile.encode(".jpg", next(textured_frames()))),
    ),
}
PARAMETERS = {"runtime": "fake", "image_transport": "compressed", "status_rate": 20.0}


class CompressedCamera:
    """Sends files to a node, best effort as cameras do."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._publisher = driver.node.create_publisher(
            CompressedImage, "image/compressed", qos_profile_sensor_data
        )
        self._sent = 0

    def send(self, data: bytes) -> None:
        message = CompressedImage(format="jpeg", data=data)
        self._sent += 1
        message.header.stamp.sec = self._sent
        self._publisher.publish(message)

    def send_until(self, data: bytes, fact, what: str) -> None:
        end = time.monotonic() + 20
        while not fact():
            assert time.monotonic() < end, f"{what} did not happen within 20 s"
            self.send(data)
            pause = time.monotonic() + 0.5
            while not fact() and time.monotonic() < pause:
                time.sleep(0.01)


def drops(driver: Driver) -> dict[str, int]:
    status = driver.latest_status()
    return dict(zip(status.drop_reasons, map(int, status.drop_counts), strict=True))


def resident(process: NodeProcess) -> int:
    """Most memory that the process ever had, bytes."""
    text = Path(f"/proc/{process.process.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def test_hostile_frames_hold_nothing_up(tmp_path: Path) -> None:
    good = hostile.encode(".jpg", next(textured_frames()), cv2.IMWRITE_JPEG_QUALITY, 95)
    with driven(tmp_path, parameters=PARAMETERS) as (process, driver):
        camera = CompressedCamera(driver)
        assert driver.configure(), process.output
        assert driver.transition(Transition.TRANSITION_ACTIVATE)
        camera.send_until(good, lambda: driver.features, "an answer")
        before = resident(process)
        for name, (reason, data) in HOSTILE.items():
            counted = drops(driver).get(reason, 0)
            camera.send_until(
                data,
                lambda reason=reason, counted=counted: drops(driver).get(reason, 0) > counted,
                f"{name} counted as {reason}",
            )
        assert resident(process) - before < 200e6
        for _, data in HOSTILE.values():
            camera.send(data)
        begin = time.monotonic()
        assert driver.deactivate()
        assert time.monotonic() - begin < 5
        assert driver.transition(Transition.TRANSITION_ACTIVATE)
        answers = len(driver.features)
        camera.send_until(good, lambda: len(driver.features) > answers, "an answer after it")
        for _, data in HOSTILE.values():
            camera.send(data)
        process.signal(signal.SIGTERM)
        assert process.wait_for_exit(10) == 0
        assert "Corrupt JPEG data" not in "".join(
            line for line in process.output.splitlines() if "ERROR" not in line
        ), "libjpeg's own line is on stderr"
