"""The node on every runtime of this machine; and what it says of those that cannot run here."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from conformance_cases import find_weights
from gpu_memory import gpu_memory
from node_process import ACTIVE, UNCONFIGURED, driven
from rcl_interfaces.msg import ParameterType, ParameterValue

from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.runtimes.machine import Availability, Machine
from gps_denied_inference.runtimes.table import find

SMALL = {"image_width": 320, "image_height": 256, "max_keypoints": 100, "threads": 1}
CYCLES = 4
GROWTH_LIMIT = 1 << 20
"""Bytes of GPU memory from the second cycle to the last; the driver deals in pages of 2 MiB."""


@dataclass(frozen=True)
class Case:
    """A runtime, and what ``~/status`` has to say of it."""

    runtime: str
    device: str
    precision: str
    providers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.runtime}-{self.device}-{self.precision}"

    def availability(self) -> Availability:
        return find(self.runtime)[0].ask(Machine(), self.device.partition(":")[0])

    def parameters(self) -> dict[str, object]:
        """Return the node's parameters; skip where the runtime or its weights are missing."""
        available = self.availability()
        if not available.works:
            pytest.skip(available.reason)
        parameters = {
            **SMALL,
            "runtime": self.runtime,
            "device": self.device,
            "precision": self.precision,
        }
        if self.runtime.startswith("pytorch"):
            weights = find_weights()
            if weights is None:
                pytest.skip("no published weights of xfeat: run 'gdi models fetch xfeat'")
            parameters["weights_file"] = str(weights)
        return parameters


ON_CPU = [
    Case("fake", "cpu", "fp32", ("FakeProvider",)),
    Case("onnxruntime", "cpu", "fp32", ("CPUExecutionProvider",)),
    Case("pytorch_fp32", "cpu", "fp32", ("eager",)),
]
ON_GPU = [
    Case("onnxruntime", "cuda:0", "fp16", ("CUDAExecutionProvider",)),
    Case("onnxruntime", "cuda:0", "fp32", ("CUDAExecutionProvider",)),
    Case("pytorch_fp16", "cuda:0", "fp16", ("cuda_graph", "eager")),
    Case("tensorrt", "cuda:0", "fp16", ("tensorrt cuda_graph", "tensorrt_rtx cuda_graph")),
]


def text(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


@pytest.mark.parametrize("case", [*ON_CPU, *ON_GPU], ids=str)
def test_whole_life_on_each_runtime(tmp_path: Path, case: Case) -> None:
    available = case.availability()
    device = f"cuda:0 {survey().gpus[0].name}" if case in ON_GPU and available.works else "cpu"
    with driven(tmp_path, parameters=case.parameters()) as (process, driver):
        for life in (1, 2):
            assert driver.configure(300.0), process.output
            assert driver.activate()
            answers = driver.publish_until_answered(5)
            assert all(0 < answer.count <= 100 for answer in answers)

            status = driver.wait_for_status(
                lambda s: s.frames_out >= 5, "five frames in the status"
            )
            assert status.runtime == case.runtime
            assert status.runtime_version
            # "tensorrt 10.3.0" names which of two libraries it is; the fake needs none.
            assert status.runtime_version in available.version or case.runtime == "fake"
            assert status.provider in case.providers
            assert status.device == device
            assert status.precision == case.precision
            # The log says the same in one line.
            said = f"{status.runtime} {status.runtime_version} ({status.provider}, {status.device}"
            assert process.output.count(f"{said}, {status.precision})") == life

            assert driver.deactivate()
            assert driver.cleanup()
            assert driver.state() == UNCONFIGURED
            gone = driver.wait_for_status(lambda s: s.runtime == "", "a status without an engine")
            assert gone.provider == gone.device == gone.precision == gone.runtime_version == ""
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("case", ON_GPU, ids=str)
def test_cleanup_gives_the_gpu_memory_back(
    tmp_path: Path, case: Case, record_property: Callable[[str, object], None]
) -> None:
    """What stays after the first cycle is the context and the libraries' own share; no more comes.

    That share is what ``kept_by_the_library`` of benchmarks/gpu/bench_h100.py measures in one
    process.
    """
    parameters = case.parameters()
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    with driven(tmp_path, parameters=parameters) as (process, driver):
        # Until the first engine is there, NVML knows no memory of the node.
        assert driver.configure(300.0), process.output
        with gpu_memory(process.process.pid) as (read, whose):
            loaded, released = [], []
            for cycle in range(CYCLES):
                if cycle > 0:
                    assert driver.configure(), process.output
                assert driver.activate()
                driver.publish_until_answered(3)
                assert driver.deactivate()
                loaded.append(read())
                assert driver.cleanup()
                released.append(read())
        seen = f"of {whose}: loaded {loaded}, released {released} bytes"
        record_property("gpu_memory", seen)
        print(f"{case}, memory {seen}")
        assert all(more > less for more, less in zip(loaded, released, strict=True)), seen
        assert max(released[1:]) - released[1] <= GROWTH_LIMIT, seen
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("case", ON_GPU, ids=str)
def test_a_signal_ends_an_active_node_on_the_gpu(
    tmp_path: Path, case: Case, number: signal.Signals
) -> None:
    with driven(tmp_path, parameters=case.parameters()) as (process, driver):
        assert driver.configure(300.0), process.output
        assert driver.activate()
        driver.publish_until_answered(2)
        start = time.monotonic()
        process.signal(number)
        assert process.wait_for_exit(10) == 0, process.output
        assert time.monotonic() - start < 5.0
        assert "Traceback" not in process.output
        assert "never retrieved" not in process.output


@pytest.mark.gpu
def test_auto_takes_the_gpu(tmp_path: Path) -> None:
    machine = Machine()
    candidates = {name: find(name)[0].ask(machine, "cuda") for name in ("onnxruntime", "tensorrt")}
    wanted = next((name for name, found in candidates.items() if found.works), None)
    if wanted is None:
        pytest.skip("; ".join(f"{name}: {found.reason}" for name, found in candidates.items()))
    with driven(tmp_path, parameters=SMALL) as (process, driver):
        assert driver.configure(300.0), process.output
        status = driver.wait_for_status(lambda s: s.runtime != "", "a status with an engine")
        assert (status.runtime, status.precision) == (wanted, "fp16")
        assert status.device == f"cuda:0 {survey().gpus[0].name}"
        if wanted != "onnxruntime":
            assert candidates["onnxruntime"].reason in status.selection
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch_fp16"])
def test_without_a_gpu_configure_says_so_and_another_runtime_works(
    tmp_path: Path, runtime: str, device: str
) -> None:
    asked = find(runtime)[0].ask(Machine(), "cuda")
    if asked.works:
        pytest.skip(f"{runtime} works on this machine: nothing is missing that could be named")
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
