"""respawn: a node that ends with exit code 75, since a forward pass hangs, comes back to ACTIVE."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import time

from launch_parts import description, drive, inference
from node_process import ACTIVE, image_message, textured_frames

HANGS = {
    # No network of this size answers in 30 ms on a CPU: every forward pass counts as hung.
    "runtime": "onnxruntime", "device": "cpu", "image_width": 1280, "image_height": 1280,
    "threads": 1, "warmup_iterations": 1, "infer_timeout": 0.03, "recovery": "exit",
}  # fmt: skip


@pytest.mark.launch_test
def generate_test_description():
    return description(inference(HANGS, respawn="true", respawn_delay="0.5"))


class TestRespawnAfterHang(unittest.TestCase):
    def test_exit_code_75_is_respawned(self, proc_output, proc_info):
        proc_output.assertWaitFor("/inference_node is active", timeout=90)
        node = next(
            p for p in proc_info.processes() if "inference_node" in p.process_details["name"]
        )
        first = node.process_details["pid"]
        driver, frames = drive(), textured_frames(1280, 1280)
        try:
            end = time.monotonic() + 60.0
            while node.process_details["pid"] == first:
                assert time.monotonic() < end, "the node does not end"
                driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
                time.sleep(0.1)
        finally:
            driver.close()
        proc_output.assertWaitFor("ending with exit code 75 for respawn", timeout=10)
        driver = drive()  # a new participant: it does not know the dead one
        try:
            driver.wait_until(lambda: driver.state() == ACTIVE, "the node to be active again", 90.0)
        finally:
            driver.close()
