"""Frames that no camera should send: each is refused, counted and survived by a real node."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import driven, image_message
from sensor_msgs.msg import Image

PIXELS = np.full((240, 320), 128, dtype=np.uint8)


def wrong_step() -> Image:
    message = image_message(PIXELS)
    message.step = 100
    return message


def short_data() -> Image:
    message = image_message(PIXELS)
    message.data = message.data[:-1]
    return message


def no_data() -> Image:
    message = image_message(PIXELS)
    message.data = b""
    return message


def zero_size() -> Image:
    return Image(encoding="mono8")


def huge() -> Image:
    """Claims 100 megapixels: has to be refused by what it claims, before anything is allocated."""
    message = image_message(PIXELS)
    message.height = message.width = message.step = 10_000
    return message


def unknown_encoding() -> Image:
    return image_message(PIXELS, encoding="no_such_encoding")


def test_bad_frames_are_counted_and_survived(tmp_path: Path) -> None:
    bad = [wrong_step, short_data, no_data, zero_size, huge, unknown_encoding]
    parameters = {"runtime": "fake", "status_rate": 10.0}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate()
        driver.publish_until_answered(1)
        for make in bad:
            before = driver.latest_status()
            message = make()
            message.header.frame_id = make.__name__
            answers = len(driver.features)

            def refused(expected: int = before.frames_dropped + 1) -> bool:
                return driver.latest_status().frames_dropped >= expected

            # Best effort: a frame may be lost before the node sees it; then it is sent again.
            end = time.monotonic() + 20
            while not refused() and time.monotonic() < end:
                driver.camera.publish(message)
                pause = time.monotonic() + 1.0
                while not refused() and time.monotonic() < pause:
                    time.sleep(0.01)
            status = driver.latest_status()
            assert status.frames_dropped > before.frames_dropped, f"{make.__name__} not counted"
            assert sum(status.drop_counts) == status.frames_dropped
            assert len(driver.features) == answers, f"{make.__name__} was answered"
            driver.publish_until_answered(1)
        assert process.process.poll() is None
        assert "Traceback" not in process.output
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0


def test_a_flood_of_bad_frames_does_not_flood_the_log(tmp_path: Path) -> None:
    parameters = {"runtime": "fake", "status_rate": 10.0}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert driver.configure(), process.output
        assert driver.activate()
        message = short_data()
        end = time.monotonic() + 30
        while driver.latest_status().frames_dropped < 50:
            assert time.monotonic() < end, "the node does not count the bad frames"
            driver.camera.publish(message)
            time.sleep(0.005)
        lines = [line for line in process.output.splitlines() if "ERROR" in line]
        assert 1 <= len(lines) <= 10, f"{len(lines)} error lines for 50 bad frames"
        driver.publish_until_answered(2)
