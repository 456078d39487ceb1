"""autostart: the node comes up by itself, answers, survives a camera drop-out, ends cleanly."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing.asserts
from launch_parts import description, drive, inference
from node_process import ACTIVE


@pytest.mark.launch_test
def generate_test_description():
    return description(inference({"stall_timeout": 0.5}, namespace="front", log_level="debug"))


class TestAutostart(unittest.TestCase):
    def test_frames_are_answered_before_and_after_a_drop_out(self, proc_output):
        proc_output.assertWaitFor("/front/inference_node is active", timeout=60)
        driver = drive("/front")
        try:
            assert driver.state() == ACTIVE
            driver.publish_until_answered(10)
            driver.wait_for_status(lambda s: s.time_since_frame > 0.5, "the silence to be seen")
            driver.publish_until_answered(10)
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
