"""What is not ours to raise: one line in log and status, no thread ends unseen, nothing stays."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from lifecycle_msgs.msg import State  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from gps_denied_inference.node.inputs import FrameInputs  # noqa: E402
from gps_denied_inference.node.node import InferenceNode  # noqa: E402
from gps_denied_inference.node.spinning import NodeExecutor  # noqa: E402
from gps_denied_inference.runtimes.fake import FakeRuntime  # noqa: E402
from gps_denied_inference.session import InferenceSession  # noqa: E402
from gps_denied_inference.thermal.monitor import ThermalMonitor  # noqa: E402
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState  # noqa: E402

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
NOT_EXCEPTIONS = [SystemExit, KeyboardInterrupt, GeneratorExit]


@pytest.fixture
def node(tmp_path):
    context = rclpy.Context()
    rclpy.init(context=context)
    values = {
        "runtime": "fake", "device": "cpu", "engine_cache_directory": str(tmp_path),
        "thermal_source": "none", "image_width": 160, "image_height": 128, "max_keypoints": 50,
    }  # fmt: skip
    node = InferenceNode(
        context=context,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def lines(node, monkeypatch):
    """(severity, line) of everything that the node logs."""
    logged: list[tuple[str, str]] = []

    class Recorder:
        def __getattr__(self, severity):
            return lambda line, **_: logged.append((severity, line)) or True

    monkeypatch.setattr(node, "get_logger", Recorder)
    return logged


def frame(stamp: int) -> Image:
    message = Image(height=128, width=160, encoding="mono8", step=160)
    message.header.stamp.sec = stamp
    message.data = np.random.default_rng(stamp).integers(0, 255, 160 * 128, np.uint8).tobytes()
    return message


def wait_for(condition, what):
    end = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < end, f"waited 10 s for {what}"
        time.sleep(0.005)


def opencvs_error() -> BaseException:
    try:
        cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))
    except cv2.error as error:
        return error
    raise AssertionError("OpenCV resized nothing")


@pytest.mark.parametrize("kind", NOT_EXCEPTIONS)
def test_what_infer_raises_costs_that_frame_only(node, lines, monkeypatch, kind):
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    with monkeypatch.context() as patch:

        def broken(*_, **__):
            raise kind("from a vendor's library")

        patch.setattr(FakeRuntime, "infer", broken)
        node._worker.offer(frame(1))
        wait_for(
            lambda: node._accounts[""].snapshot().drops == {"internal_error": 1}, "the frame's end"
        )
    node._worker.offer(frame(2))
    wait_for(lambda: node._accounts[""].snapshot().frames_out == 1, "the next frame's answer")
    assert node.trigger_deactivate() == SUCCESS
    errors = [line for severity, line in lines if severity == "error"]
    assert len(errors) == 1
    assert f"{kind.__name__}: from a vendor's library" in errors[0]


@pytest.mark.parametrize(
    ("raised", "named"),
    [
        (opencvs_error(), "cv2.error: OpenCV"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
        (MemoryError(), "MemoryError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_configure_failures_are_one_line_whatever_raised_them(
    node, lines, monkeypatch, raised, named
):
    def broken(*_, **__):
        raise raised

    monkeypatch.setattr(InferenceSession, "open", broken)
    assert node.trigger_configure() == FAILURE
    assert node._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED
    assert node._status.detail.startswith(f"configure failed: {named}")
    assert "\n" not in node._status.detail
    assert [line for severity, line in lines if severity == "error"] == [node._status.detail]
    assert not any("Traceback" in line for severity, line in lines if severity != "debug")
    assert any("Traceback" in line for severity, line in lines if severity == "debug")
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize("raised", [OSError("no room"), SystemExit("the library's")], ids=repr)
@pytest.mark.parametrize("step", ["activate", "deactivate", "cleanup"])
def test_a_broken_transition_leaves_its_cause_in_the_status(node, lines, monkeypatch, step, raised):
    assert node.trigger_configure() == SUCCESS
    if step == "deactivate":
        assert node.trigger_activate() == SUCCESS

    once = pytest.MonkeyPatch()

    def broken(*_, **__):
        once.undo()
        raise raised

    if step == "activate":
        once.setattr(InferenceSession, "restart_tracks", broken)
    else:
        once.setattr(FrameInputs, "unsubscribe", broken)
    getattr(node, f"trigger_{step}")()
    assert node._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED
    assert node._status.detail == (
        f"released after an error: {step} broke: {type(raised).__name__}: {raised}"
    )
    assert node._session is None
    errors = [line for severity, line in lines if severity == "error"]
    assert errors == [f"{step} broke: {type(raised).__name__}: {raised}"]
    assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize("kind", NOT_EXCEPTIONS)
def test_what_a_callback_raises_ends_the_spinning(node, kind):
    executor = NodeExecutor(2, context=node.context)
    executor.add_node(node)

    def broken():
        timer.cancel()
        raise kind

    def spin():
        for _ in range(200):
            executor.spin_once(0.05)

    timer = node.create_timer(0.001, broken)
    try:
        with pytest.raises(RuntimeError, match=f"a callback raised {kind.__name__}"):
            spin()
    finally:
        executor.shutdown(5.0)


@pytest.mark.parametrize("kind", NOT_EXCEPTIONS)
def test_what_a_thermal_reader_raises_is_a_state_and_the_reader_lives(kind):
    class Source:
        name = "stand-in"
        reads = 0

        def read(self):
            self.reads += 1
            if self.reads == 1:
                raise kind("gone")
            return ThermalState(level=ThermalLevel.NOMINAL, is_telemetry_available=True)

        def close(self):
            pass

    with ThermalMonitor(Source(), period=0.02) as monitor:
        wait_for(lambda: monitor.latest().level is ThermalLevel.NOMINAL, "a reading after it")
