"""Forward passes that hang or fail: noticed, said, recovered from; and nothing waits for them."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from conformance_cases import find_weights
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_process import UNCONFIGURED as UNCONFIGURED_STATE
from node_process import Driver, NodeProcess, driven, image_message, textured_frames

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.msg import LocalizationStatus

PROGRAM = Path(__file__).parents[1] / "support" / "hanging_node.py"
SMALL = {
    "image_width": 160, "image_height": 128, "max_keypoints": 50, "threads": 1,
    "device": "cpu", "status_rate": 10.0, "thermal_source": "none",
}  # fmt: skip
HANGS = "infer hangs: a forward pass has not come back for"
SEARCH_HANGS = "search hangs: a forward pass of the search on the map has not come back for"


@contextmanager
def faulty(
    folder: Path, runtime: str, **parameters: Any
) -> Iterator[tuple[NodeProcess, Driver, Path]]:
    """Run a node that is active and answers; writing into the path yields a fault."""
    command = folder / "fault"
    environment = {"GDI_FAULT": str(command), "GDI_FAULT_RUNTIME": runtime}
    with driven(
        folder, parameters={**SMALL, "runtime": runtime, **parameters}, environment=environment,
        program=PROGRAM,
    ) as (process, driver):  # fmt: skip
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(1)
        yield process, driver, command


def send_until(driver: Driver, fact: Any, what: str, limit: float) -> float:
    """Send frames at 30 Hz until a fact holds; return the seconds it took."""
    frames, begin = textured_frames(), time.monotonic()

    def sent() -> bool:
        driver.camera.publish(image_message(next(frames), stamp=time.time_ns()))
        time.sleep(0.03)
        return bool(fact())

    driver.wait_until(sent, what, limit)
    return time.monotonic() - begin


def hang(driver: Driver, command: Path) -> float:
    """Let the library hang; return the s until ``~/status`` says it."""
    command.write_text("hang", encoding="utf-8")
    return send_until(driver, lambda: HANGS in driver.statuses[-1].task_detail, "the report", 10.0)


def pytorch_weights(runtime: str) -> dict[str, Any]:
    if runtime != "pytorch":
        return {}
    weights = find_weights()
    if weights is None:
        pytest.skip("no published weights of xfeat: run 'gdi models fetch xfeat'")
    return {"weights_file": str(weights)}


@pytest.mark.parametrize("runtime", ["onnxruntime", "pytorch", "fake"])
def test_an_infer_that_hangs_is_noticed_and_recovered(tmp_path: Path, runtime: str) -> None:
    with faulty(tmp_path, runtime, **pytorch_weights(runtime)) as (process, driver, command):
        errors: list[DiagnosticStatus] = []
        driver.node.create_subscription(
            DiagnosticArray, "/diagnostics",
            lambda array: errors.extend(
                s for s in array.status if HANGS in s.message and s.name.endswith(": runtime")
            ), 50,
        )  # fmt: skip
        noticed = hang(driver, command)
        command.unlink()
        answered = len(driver.features)
        recovered = send_until(
            driver, lambda: len(driver.features) > answered + 2, "answers again", 20.0
        )
        print(f"{runtime}: noticed in {noticed:.2f} s, answers again {recovered:.2f} s later")
        assert noticed < 2.0
        assert noticed + recovered < 10.0
        assert {error.level for error in errors} == {DiagnosticStatus.ERROR}
        assert len(re.findall(r"\[ERROR\] .*: infer hangs", process.output)) == 1
        assert re.search(r"recovered: active again .* \(restart 1 of 7 in a row\)", process.output)
        status = driver.wait_for_status(lambda s: s.task_ok and s.frames_out > 2, "all well")
        assert dict(zip(status.drop_reasons, status.drop_counts, strict=True))["infer_hung"] == 1
        process.signal(signal.SIGTERM)
        assert process.wait_for_exit(10.0) == 0
        assert "terminate called" not in process.output


def test_a_hanging_gpu_ends_the_process_for_respawn(tmp_path: Path) -> None:
    with faulty(tmp_path, "tensorrt", precision="fp16") as (process, driver, command):
        noticed = hang(driver, command)
        print(f"tensorrt: noticed in {noticed:.2f} s")
        assert noticed < 2.0
        assert process.wait_for_exit(8.0) == 75
        assert "ending with exit code 75 for respawn: a GPU that hangs" in process.output
        assert "terminate called" not in process.output


@pytest.mark.parametrize("fault", ["fail", "nan"])
def test_a_row_of_failures_is_recovered_from(tmp_path: Path, fault: str) -> None:
    with faulty(tmp_path, "onnxruntime", infer_failure_limit=5) as (process, driver, command):
        command.write_text(fault, encoding="utf-8")
        send_until(
            driver, lambda: "infer fails: 5 forward passes" in driver.statuses[-1].task_detail,
            "the report", 5.0,
        )  # fmt: skip
        command.unlink()
        answered = len(driver.features)
        assert send_until(driver, lambda: len(driver.features) > answered, "answers", 10.0) < 10.0
        assert process.output.count("recovered: active again") == 1


def test_restarts_that_do_not_help_end_the_process(tmp_path: Path) -> None:
    with faulty(tmp_path, "fake", infer_timeout=0.2) as (process, driver, command):
        command.write_text("hang", encoding="utf-8")
        send_until(driver, lambda: process.process.poll() is not None, "the end", 40.0)
        assert process.wait_for_exit(1.0) == 75
        assert process.output.count("recovered: active again") == 7
        assert "7 restarts in a row did not help" in process.output


@pytest.mark.parametrize("timeout", [0.0, 1.5])
def test_deactivate_and_sigterm_answer_while_an_infer_hangs(tmp_path: Path, timeout: float) -> None:
    parameters = {"recovery": "off", "infer_timeout": timeout}
    with faulty(tmp_path, "onnxruntime", **parameters) as (process, driver, command):
        if timeout:
            hang(driver, command)
        else:
            command.write_text("hang", encoding="utf-8")
            seen = driver.statuses[-1].frames_in
            send_until(driver, lambda: driver.statuses[-1].frames_in > seen + 3, "frames in", 5.0)
        begin = time.monotonic()
        assert not driver.deactivate()
        assert time.monotonic() - begin < 7.0
        assert driver.state() == UNCONFIGURED_STATE
        command.unlink()
        assert driver.configure(), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(1)
        command.write_text("hang", encoding="utf-8")
        seen = driver.statuses[-1].frames_in
        send_until(driver, lambda: driver.statuses[-1].frames_in > seen + 3, "frames in", 5.0)
        begin = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait_for_exit(5.0) == 0
        assert "terminate called" not in process.output


def test_a_stopped_process_does_not_hang(tmp_path: Path) -> None:
    with faulty(tmp_path, "onnxruntime", infer_timeout=0.5) as (process, driver, _):
        for _ in range(3):
            driver.publish_until_answered(1)
            process.signal(signal.SIGSTOP)
            time.sleep(0.8)
            process.signal(signal.SIGCONT)
        driver.publish_until_answered(1)
        assert "infer hangs" not in process.output


def test_exit_is_what_recovery_exit_means(tmp_path: Path) -> None:
    with faulty(tmp_path, "fake", recovery="exit", infer_timeout=0.3) as (process, driver, command):
        command.write_text("hang", encoding="utf-8")
        send_until(driver, lambda: process.process.poll() is not None, "the end", 10.0)
        assert process.wait_for_exit(1.0) == 75


@pytest.mark.slow
def test_a_map_search_that_hangs_is_noticed_and_recovered(tmp_path: Path) -> None:
    from localizing_process import PARAMETERS, Heard
    from simulated_map import scene_map

    values = {**PARAMETERS, "map_file": str(scene_map()), "recovery": "restart", "threads": 1}
    command = tmp_path / "fault"
    environment = {"GDI_FAULT": str(command), "GDI_FAULT_RUNTIME": "onnxruntime"}
    with driven(tmp_path, parameters=values, environment=environment, program=PROGRAM) as (
        process, driver,
    ):  # fmt: skip
        heard = Heard(driver, SimulatedFlight(frames=240), [], [], [], [])
        name = f"{process.full_name}/localization_status"
        driver.node.create_subscription(LocalizationStatus, name, heard.status.append, 100)
        assert driver.configure(300.0), process.output
        assert driver.activate(), process.output
        heard.step()

        def flown(fact: Any, what: str, limit: float) -> float:
            begin = time.monotonic()

            def sent() -> bool:
                heard.publish()
                time.sleep(0.05)
                return bool(fact())

            driver.wait_until(sent, what, limit)
            return time.monotonic() - begin

        command.write_text("hang search", encoding="utf-8")
        answered = len(driver.features)
        flown(lambda: SEARCH_HANGS in driver.statuses[-1].task_detail, "the report", 10.0)
        noticed = time.time() - command.with_name("hangs").stat().st_mtime
        assert len(driver.features) > answered + 5  # frames do not wait for the search
        command.unlink()
        flown(lambda: "recovered: active again" in process.output, "the recovery", 20.0)
        found = re.search(r"recovered: active again ([\d.]+) s after: search hangs", process.output)
        assert found is not None
        recovered = float(found[1])
        print(f"map search: noticed in {noticed:.2f} s, active again {recovered:.1f} s later")
        assert noticed < 2.0
        assert noticed + recovered < 10.0
        searched = len(heard.status)  # how long a search takes is the machine's
        flown(lambda: len(heard.status) > searched, "a search", 60.0)
        assert [s.reason for s in heard.status].count("search_hung") == 1
        driver.wait_for_status(lambda s: s.task_ok, "all well")

        command.write_text("hang search", encoding="utf-8")
        seen = len(heard.status)
        flown(lambda: len(heard.status) == seen, "a search that hangs", 5.0)
        time.sleep(0.5)
        process.signal(signal.SIGTERM)
        assert process.wait_for_exit(8.0) == 0
        assert "terminate called" not in process.output
        assert "Traceback" not in process.output


def test_deactivate_answers_while_a_map_search_hangs(tmp_path: Path) -> None:
    from localizing_process import PARAMETERS, Heard
    from simulated_map import scene_map

    values = {**PARAMETERS, "map_file": str(scene_map()), "recovery": "off", "infer_timeout": 0.0}
    command = tmp_path / "fault"
    environment = {"GDI_FAULT": str(command), "GDI_FAULT_RUNTIME": "onnxruntime"}
    with driven(tmp_path, parameters=values, environment=environment, program=PROGRAM) as (
        process, driver,
    ):  # fmt: skip
        heard = Heard(driver, SimulatedFlight(frames=240), [], [], [], [])
        assert driver.configure(300.0), process.output
        assert driver.activate(), process.output
        command.write_text("hang search", encoding="utf-8")
        for _ in range(10):
            heard.publish()
            time.sleep(0.1)
        begin = time.monotonic()
        assert not driver.deactivate()
        assert time.monotonic() - begin < 7.0
        assert driver.state() == UNCONFIGURED_STATE
        assert "a search on the map does not come back" in process.output
        command.unlink()
        assert driver.configure(300.0), process.output
        assert driver.activate(), process.output
        driver.publish_until_answered(1)
