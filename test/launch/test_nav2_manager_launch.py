"""nav2_lifecycle_manager: the example hands the node over to a manager, which brings it up.

A stand-in for nav2's manager is used: what is tested is the example, not nav2.
"""

from __future__ import annotations

import sys
import tempfile
import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing
import launch_testing.asserts
from launch.actions import GroupAction, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable
from launch_parts import LAUNCH_FOLDER, description, drive, parameter_file
from node_process import ACTIVE

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in_lifecycle_manager.py"
PACKAGE = "nav2_lifecycle_manager"


def stand_in_prefix() -> Path:
    """Make an install prefix in which ``nav2_lifecycle_manager`` is the stand-in."""
    prefix = Path(tempfile.mkdtemp(prefix="gdi_launch_test_"))
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / PACKAGE
    executable = prefix / "lib" / PACKAGE / "lifecycle_manager"
    for file in (marker, executable):
        file.parent.mkdir(parents=True)
    marker.touch()
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    executable.chmod(0o755)
    return prefix


@pytest.mark.launch_test
def generate_test_description():
    arguments = {
        "namespace": "front",
        "image_topic": "/camera/image_raw",
        "params_file": str(parameter_file()),
    }
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / f"{PACKAGE}.launch.py"))
    prefixes = [str(stand_in_prefix()), ":", EnvironmentVariable("AMENT_PREFIX_PATH")]
    return description(
        GroupAction(
            [
                SetEnvironmentVariable("AMENT_PREFIX_PATH", prefixes),
                IncludeLaunchDescription(source, launch_arguments=list(arguments.items())),
            ]
        )
    )


class TestManager(unittest.TestCase):
    def test_the_manager_brings_the_node_up(self, proc_output):
        proc_output.assertWaitFor("Managed nodes are active", timeout=60)
        driver = drive("/front")
        try:
            assert driver.state() == ACTIVE
            driver.wait_until(
                lambda: driver.node.count_subscribers("/camera/image_raw") == 1, "the remapping"
            )
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
