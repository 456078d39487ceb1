"""The node on every runtime of this machine; and what it says of those that cannot run here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from conformance_cases import find_weights
from rcl_interfaces.msg import ParameterType, ParameterValue

from gps_denied_inference.runtimes.availability import Availability, Machine
from node_process import ACTIVE, UNCONFIGURED, driven

SMALL = {"image_width": 320, "image_height": 256, "max_keypoints": 100, "threads": 2}


@dataclass(frozen=True)
class Case:
    """A runtime, and what ``~/status`` has to say of it."""

    runtime: str
    device: str
    precision: str
    providers: tuple[str, ...]
    parameters: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.runtime}-{self.device}"

    def availability(self) -> Availability:
        machine = Machine()
        return {
            "fake": lambda: Availability(True),
            "onnxruntime": lambda: machine.onnxruntime(self.device),
            "pytorch_fp32": machine.pytorch_fp32,
            "pytorch_fp16": machine.pytorch_fp16,
            "tensorrt": machine.tensorrt,
        }[self.runtime]()


ON_CPU = [
    Case("fake", "cpu", "fp32", ("FakeProvider",)),
    Case("onnxruntime", "cpu", "fp32", ("CPUExecutionProvider",)),
    Case("pytorch_fp32", "cpu", "fp32", ("eager",)),
]
ON_GPU = [
    Case("onnxruntime", "cuda", "fp16", ("CUDAExecutionProvider",)),
    Case("pytorch_fp16", "cuda", "fp16", ("cuda_graph", "eager")),
    Case("tensorrt", "cuda", "fp16", ("tensorrt cuda_graph", "tensorrt_rtx cuda_graph")),
]


def text(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


@pytest.mark.parametrize("case", [*ON_CPU, *ON_GPU], ids=str)
def test_whole_life_on_each_runtime(tmp_path: Path, case: Case) -> None:
    available = case.availability()
    if not available.works:
        pytest.skip(available.reason)
    parameters = {**SMALL, "runtime": case.runtime, "device": case.device}
    if case.runtime.startswith("pytorch"):
        weights = find_weights()
        if weights is None:
            pytest.skip("no published weights of xfeat: run 'gdi models fetch xfeat'")
        parameters["weights_file"] = str(weights)
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert driver.configure(300.0), process.output
        assert driver.activate()
        answers = driver.publish_until_answered(5)
        assert all(0 < answer.count <= 100 for answer in answers)

        status = driver.wait_for_status(lambda s: s.frames_out >= 5, "five frames in the status")
        assert status.runtime == case.runtime
        assert status.runtime_version
        # "tensorrt 10.3.0" names which of two libraries it is; the fake needs none.
        assert status.runtime_version in available.version or case.runtime == "fake"
        assert status.provider in case.providers
        assert status.device.startswith("cuda:0 " if case.device == "cuda" else case.device)
        assert status.precision == case.precision
        # The log says the same in one line.
        said = f"{status.runtime} {status.runtime_version} ({status.provider}, {status.device}, "
        assert said + status.precision in process.output

        assert driver.deactivate()
        assert driver.cleanup()
        assert driver.state() == UNCONFIGURED
        gone = driver.wait_for_status(lambda s: s.runtime == "", "a status without an engine")
        assert gone.provider == gone.device == gone.precision == gone.runtime_version == ""
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch_fp16"])
def test_without_a_gpu_configure_says_so_and_another_runtime_works(
    tmp_path: Path, runtime: str, device: str
) -> None:
    machine = Machine()
    asked = {"tensorrt": machine.tensorrt, "pytorch_fp16": machine.pytorch_fp16}[runtime]()
    if asked.works:
        pytest.skip(f"{runtime} works on this machine")
    parameters = {**SMALL, "runtime": runtime, "device": device}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert not driver.configure()
        assert driver.state() == UNCONFIGURED
        errors = [line for line in process.output.splitlines() if "ERROR" in line]
        assert len(errors) == 1, errors
        line = errors[0].partition("configure failed: ")[2]
        assert line.startswith(f"no runtime for runtime:={runtime} device:={device} works here: ")
        assert asked.reason in line
        assert line == driver.latest_status().detail.partition("configure failed: ")[2]
        assert "Traceback" not in process.output

        for name, value in (("runtime", "onnxruntime"), ("device", "cpu")):
            taken, reason = driver.set_parameter(name, text(value))
            assert taken, reason
        assert driver.configure(), process.output
        assert driver.activate()
        assert driver.state() == ACTIVE
        driver.publish_until_answered(2)
        assert driver.latest_status().runtime == "onnxruntime"
