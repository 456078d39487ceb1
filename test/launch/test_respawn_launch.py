"""respawn: a killed node comes back, and up to ACTIVE."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import os
import signal

from launch_parts import description, drive, inference


@pytest.mark.launch_test
def generate_test_description():
    return description(inference(respawn="true", respawn_delay="0.5"))


class TestRespawn(unittest.TestCase):
    def test_killed_node_comes_back(self, proc_output, proc_info):
        proc_output.assertWaitFor("/inference_node is active", timeout=60)
        driver = drive()
        driver.publish_until_answered(3)
        driver.close()
        node = next(
            p for p in proc_info.processes() if "inference_node" in p.process_details["name"]
        )
        first = node.process_details["pid"]
        os.kill(first, signal.SIGKILL)
        proc_info.assertWaitForShutdown(process=node, timeout=10)
        driver = drive()  # a new participant: it does not know the dead one
        try:
            driver.publish_until_answered(3)
        finally:
            driver.close()
        assert node.process_details["pid"] != first
