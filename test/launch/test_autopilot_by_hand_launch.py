"""autopilot.launch.py with autostart:=false: both nodes wait for an external manager."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

import launch_testing
import launch_testing.asserts
from launch_parts import description, drive
from link_launch import autopilot, state_of
from node_process import UNCONFIGURED
from test_link import free_port

NODES = ("/inference_node", "/autopilot_link")


@pytest.mark.launch_test
def generate_test_description():
    return description(autopilot(free_port(), autostart="false"))


class TestByHand(unittest.TestCase):
    def test_both_stay_unconfigured(self, proc_info):
        driver = drive()
        try:
            for node in NODES:
                assert state_of(driver, node) == UNCONFIGURED
            started = {name.rsplit("-", 1)[0] for name in proc_info.process_names()}
            assert started == {"inference_node", "autopilot_link"}
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
