"""vio_composition: an estimator's topics are connected to the camera and to the node's results."""

from __future__ import annotations

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
from launch_parts import LAUNCH_FOLDER, description, drive, parameter_file
from node_process import UNCONFIGURED

ESTIMATOR = Path(__file__).parents[1] / "support" / "estimator.launch.py"
PROFILE = LAUNCH_FOLDER.parent / "config" / "fastdds_large_images.xml"
CASES = {
    # As in the file's own docstring.
    "camera": {"autostart": "false", "image_topic": "/camera/image_raw"},
    "features": {
        "namespace": "front",
        "image_topic": "/camera/image_raw",
        "camera_info_topic": "/camera/camera_info",
        "vio_image": "cam0",
        "vio_camera_info": "info0",
        "vio_features": "features",
    },
}
READERS = {
    "camera": {"/vio/cam0": 1, "/vio/features": 1, "/vio/gps": 1},
    "features": {
        "/camera/image_raw": 2,
        "/camera/camera_info": 2,
        "/front/inference_node/feature_cloud": 1,
        "/vio/gps": 1,
    },
}


@pytest.mark.launch_test
@launch_testing.parametrize("case", list(CASES))
def generate_test_description(case):
    arguments = {"vio_launch_file": str(ESTIMATOR), **CASES[case]}
    if case == "features":
        arguments["params_file"] = str(parameter_file({"task": "track"}))
    users = Path(tempfile.mkdtemp(prefix="gdi_launch_test_"), "users.xml")
    users.write_bytes(PROFILE.read_bytes())
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "vio_composition.launch.py"))
    composition = IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))
    chosen = SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", str(users))
    return description(GroupAction([chosen, composition]))


class TestWiring(unittest.TestCase):
    def test_topics_are_connected(self, proc_output, case):
        driver = drive("/front" if case == "features" else "")
        try:
            if case == "features":
                proc_output.assertWaitFor("/front/inference_node is active", timeout=60)
            else:
                assert driver.state() == UNCONFIGURED
            for topic, count in READERS[case].items():
                driver.wait_until(
                    lambda topic=topic, count=count: driver.node.count_subscribers(topic) == count,
                    f"{count} readers of {topic}",
                )
        finally:
            driver.close()

    def test_the_users_profile_stays(self, proc_info, case):
        for process in proc_info.processes():
            environment = Path(f"/proc/{process.process_details['pid']}/environ").read_bytes()
            values = dict(pair.partition(b"=")[::2] for pair in environment.split(b"\0"))
            assert values[b"FASTRTPS_DEFAULT_PROFILES_FILE"].endswith(b"/users.xml")
            assert b"FASTDDS_DEFAULT_PROFILES_FILE" not in values


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info, case):
        launch_testing.asserts.assertExitCodes(proc_info)
