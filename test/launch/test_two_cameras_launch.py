"""Two cameras in one launch: two namespaces, nothing crosses over."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing.asserts
from launch_parts import description, drive, inference


@pytest.mark.launch_test
def generate_test_description():
    return description(inference(namespace="left"), inference(namespace="right"))


class TestTwoCameras(unittest.TestCase):
    def test_each_answers_its_own_camera(self, proc_output):
        for side in ("left", "right"):
            proc_output.assertWaitFor(f"/{side}/inference_node is active", timeout=60)
        left, right = drive("/left"), drive("/right")
        try:
            left.publish_until_answered(5)
            assert not right.features
            right.publish_until_answered(5)
        finally:
            left.close()
            right.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
