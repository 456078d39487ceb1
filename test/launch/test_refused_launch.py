"""autostart of what cannot be: reported in one line, the node lives, a retry works."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")

import launch_testing
from launch_parts import damaged_engine, description, drive, inference
from node_process import ACTIVE, UNCONFIGURED
from rcl_interfaces.msg import ParameterType, ParameterValue

# Parameters of each case, and the word that the report has to have.
CASES = {
    "invalid_parameter": (lambda: {"max_keypoints": 0}, "'max_keypoints' = 0 is refused"),
    "unknown_model": (lambda: {"model": "no_such_model"}, "no_such_model"),
    "missing_gpu": (lambda: {"runtime": "onnxruntime", "device": "cuda:63"}, "cuda"),
    "missing_engine": (
        lambda: {"runtime": "onnxruntime", "device": "cpu", "engine_policy": "load_only"},
        "load_only",
    ),
    "wrong_hash": (lambda: damaged_engine(truncate=False), "hash"),
    "truncated_engine": (lambda: damaged_engine(truncate=True), "size"),
    "unsigned_without_key": (lambda: {"require_signed_engines": True}, "engine_public_key"),
}


def text(value):
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


MENDED = {
    "max_keypoints": ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=100),
    "model": text("xfeat"),
    "device": text("cpu"),
    "engine_policy": text("build_if_needed"),
    "require_signed_engines": ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False),
}


@pytest.mark.launch_test
@launch_testing.parametrize("case", list(CASES))
def generate_test_description(case):
    return description(inference(CASES[case][0]()))


class TestRefused(unittest.TestCase):
    def test_report_and_retry(self, proc_output, case):
        word = CASES[case][1]
        proc_output.assertWaitFor("could not be configured", timeout=60)
        proc_output.assertWaitFor(word, timeout=5)
        driver = drive()
        try:
            assert driver.state() == UNCONFIGURED
            for name, value in MENDED.items():
                taken, reason = driver.set_parameter(name, value)
                assert taken, reason
            assert driver.configure()
            assert driver.activate()
            assert driver.state() == ACTIVE
            driver.publish_until_answered(2)
        finally:
            driver.close()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_node_ended_cleanly_and_autostart_said_no(self, proc_info, case):
        codes = {info.process_name.rsplit("-", 1)[0]: info.returncode for info in proc_info}
        assert codes == {"inference_node": 0, "autostart": 1}
