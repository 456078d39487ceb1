"""autostart:=false: an external manager drives the node, makes mistakes, and is survived."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing.asserts
from launch_parts import description, drive, inference
from lifecycle_msgs.msg import Transition
from node_process import ACTIVE, UNCONFIGURED


@pytest.mark.launch_test
def generate_test_description():
    return description(inference(autostart="false", image_topic="/camera/image_raw"))


class TestExternalManager(unittest.TestCase):
    def test_transitions(self):
        driver = drive()
        try:
            assert driver.state() == UNCONFIGURED
            assert not driver.transition(Transition.TRANSITION_ACTIVATE)
            assert driver.configure()
            assert driver.transition(Transition.TRANSITION_ACTIVATE)
            assert driver.state() == ACTIVE
            # The remapping took effect: the camera's topic has a reader, the plain one has none.
            driver.wait_until(
                lambda: driver.node.count_subscribers("/camera/image_raw") == 1, "the remapping"
            )
            assert driver.node.count_subscribers("/image") == 0
            assert driver.deactivate()
            assert driver.cleanup()
            assert driver.shutdown()
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
