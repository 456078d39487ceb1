"""vio_composition: an estimator's topics are connected to the camera and to the node's results."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing
import launch_testing.asserts
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_parts import LAUNCH_FOLDER, description, drive, parameter_file

ESTIMATOR = Path(__file__).parents[1] / "support" / "estimator.launch.py"


@pytest.mark.launch_test
def generate_test_description():
    arguments = {
        "vio_launch_file": str(ESTIMATOR),
        "namespace": "front",
        "params_file": str(parameter_file({"task": "track"})),
        "image_topic": "/camera/image_raw",
        "camera_info_topic": "/camera/camera_info",
        "vio_image": "cam0",
        "vio_camera_info": "info0",
        "vio_features": "features",
        "vio_fix": "gps",
    }
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "vio_composition.launch.py"))
    return description(IncludeLaunchDescription(source, launch_arguments=list(arguments.items())))


class TestWiring(unittest.TestCase):
    def test_topics_are_connected(self, proc_output):
        proc_output.assertWaitFor("/front/inference_node is active", timeout=60)
        driver = drive("/front")
        readers = {
            "/camera/image_raw": 2,
            "/camera/camera_info": 2,
            "/front/inference_node/feature_cloud": 1,
            "/front/inference_node/fix": 1,
        }
        try:
            for topic, count in readers.items():
                driver.wait_until(
                    lambda topic=topic, count=count: driver.node.count_subscribers(topic) == count,
                    f"{count} readers of {topic}",
                )
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info):
        launch_testing.asserts.assertExitCodes(proc_info)
