"""A real node whose frames are all answered, and whose task gives nothing, says so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_process import LATCHED, Driver, driven, image_message, textured_frames
from sensor_msgs.msg import Image

CHEAP = {
    "runtime": "onnxruntime",
    "device": "cpu",
    "image_width": 320,
    "image_height": 256,
    "max_keypoints": 200,
    "warmup_iterations": 1,
    "status_rate": 20.0,
}


class Health:
    """What status and diagnostics say of the task."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.levels: dict[str, int] = {}
        driver.node.create_subscription(DiagnosticArray, "/diagnostics", self._take, 10)

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": task"):
                self.levels[status.message] = ord(status.level)

    def wait_for(self, words: str) -> None:
        def said() -> bool:
            status = self._driver.statuses[-1]
            return not status.task_ok and words in status.task_detail

        self._driver.wait_until(said, f"a status with {words!r}")
        self._driver.wait_until(
            lambda: any(
                words in message and level == ord(DiagnosticStatus.WARN)
                for message, level in self.levels.items()
            ),
            f"a warning in /diagnostics with {words!r}",
        )


def ground() -> Iterator[np.ndarray[Any, Any]]:
    """Yield frames whose corners do not all lie on the network's own grid."""
    return (cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in textured_frames())


def send(driver: Driver, stamps: list[int], count: int) -> None:
    """Send frames with stamps (s) one by one, each when the one before was answered."""
    frames = itertools.islice(ground(), count)
    for stamp, frame in zip(itertools.cycle(stamps), frames, strict=False):
        before = len(driver.features)
        message = image_message(frame)
        message.header.stamp.sec, message.header.stamp.nanosec = stamp, 0
        driver.camera.publish(message)
        driver.wait_until(lambda b=before: len(driver.features) > b, "the answer")


def test_stamps_that_are_zero(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={**CHEAP, "task": "track"}) as (process, driver):
        health = Health(driver)
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        assert driver.statuses[-1].task_ok
        send(driver, [0], 6)
        health.wait_for("frames are zero, so no track can go on")
        send(driver, [0], 6)
        driver.wait_until(lambda: driver.statuses[-1].frames_out == 12, "the count")
        assert process.output.count("gives no result: the stamps") == 1
        send(driver, [5], 1)
        driver.wait_until(lambda: driver.statuses[-1].task_ok, "the task to be well")
        send(driver, [5], 6)
        health.wait_for("do not rise")
        assert driver.deactivate()
        driver.wait_until(lambda: driver.statuses[-1].task_ok, "nothing to be expected")


def test_a_reference_that_is_missing_black_or_good(tmp_path: Path) -> None:
    with driven(tmp_path, parameters={**CHEAP, "task": "match"}) as (process, driver):
        health = Health(driver)
        references = driver.node.create_publisher(Image, "reference/image", LATCHED)
        assert driver.configure(), process.output
        assert driver.activate(), process.output

        def fed(words: str) -> bool:  # frames go on, so that none of them is missed
            send(driver, [6], 1)
            return bool(driver.statuses) and words in driver.statuses[-1].task_detail

        missing = "no reference: publish one on /reference/image"
        driver.wait_until(lambda: fed(missing), "the missing reference")
        health.wait_for(missing)
        references.publish(image_message(np.zeros((240, 320), np.uint8), 5, frame_id="black"))
        driver.wait_until(lambda: fed("the reference shows 0 features"), "the black reference")
        health.wait_for("the reference shows 0 features")
        references.publish(image_message(next(ground()), 5, frame_id="good"))
        driver.wait_until(
            lambda: fed("is seen whole at") and driver.statuses[-1].task_ok, "the good reference"
        )
        assert process.output.count("gives no result: no reference") == 1
        assert process.output.count("gives no result: the reference shows") == 1
        assert "gives its result again" in process.output
