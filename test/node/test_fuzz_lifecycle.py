"""Any row of transitions, frames and parameters leaves a node that answers and counts right."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pytest
from fuzzing import LONG, Fuzzer
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2: rclpy is not installed here")

from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from gps_denied_inference.node.node import InferenceNode  # noqa: E402
from gps_denied_inference.node.rclpy_compat import RCLError, lifecycle_state  # noqa: E402

STEPS = 25
"""Of a row; each is an input."""
FUZZER = Fuzzer("test_any_row_of_transitions_frames_and_parameters")
LEADS = {
    ("configure", 1): 2, ("activate", 2): 3, ("deactivate", 3): 2, ("cleanup", 2): 1,
}  # fmt: skip


class Flight(RuleBasedStateMachine):
    """One node, driven in its own process; the model is its lifecycle state."""

    def __init__(self) -> None:
        super().__init__()
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.folder = tempfile.TemporaryDirectory()
        values = {
            "runtime": "fake", "device": "cpu", "engine_cache_directory": self.folder.name,
            "thermal_source": "none", "image_width": 64, "image_height": 64, "max_keypoints": 20,
        }  # fmt: skip
        self.node = InferenceNode(
            context=self.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self.state, self.stamp = 1, 0

    @rule(name=st.sampled_from(("configure", "activate", "deactivate", "cleanup")))
    def transition(self, name: str) -> None:
        FUZZER.count += 1
        wanted = LEADS.get((name, self.state))
        try:
            result = getattr(self.node, f"trigger_{name}")()
        except RCLError:
            assert wanted is None
            return
        assert wanted is not None
        assert result == TransitionCallbackReturn.SUCCESS
        self.state = wanted

    @rule(
        height=st.integers(0, 96), width=st.integers(0, 96), step=st.integers(-2, 2),
        encoding=st.sampled_from(("mono8", "rgb8", "mono16", "bayer_rggb8", "", "nonsense")),
        short=st.booleans(),
    )  # fmt: skip
    def frame(self, height: int, width: int, step: int, encoding: str, short: bool) -> None:
        FUZZER.count += 1
        worker = self.node._worker
        if worker is None:
            return
        self.stamp += 1
        message = Image(height=height, width=width, encoding=encoding, step=max(0, width + step))
        message.header.stamp.sec = self.stamp
        size = max(0, message.step * height - int(short))
        message.data = np.random.default_rng(self.stamp).integers(0, 255, size, np.uint8).tobytes()
        worker.offer(message)

    @rule(
        name=st.sampled_from(("frame_rate_limit", "stall_timeout", "infer_timeout",
                              "max_keypoints", "recovery", "task", "no_such_parameter")),
        value=st.one_of(st.floats(allow_nan=True), st.integers(-5, 5), st.text(max_size=4),
                        st.booleans()),
    )  # fmt: skip
    def parameter(self, name: str, value: Any) -> None:
        FUZZER.count += 1
        if name == "no_such_parameter" or (name == "infer_timeout" and value in (True, False)):
            return
        if name in ("max_keypoints", "task") and self.state == 1:
            return  # taken with the next configure: another flight
        (result,) = self.node.set_parameters([Parameter(name, value=value)])
        assert result.successful or result.reason

    @invariant()
    def the_lifecycle_is_where_it_should_be(self) -> None:
        assert lifecycle_state(self.node)[0] == self.state
        account = self.node._accounts[""].snapshot()
        in_work = account.frames_in - account.frames_out - account.frames_dropped
        assert 0 <= in_work <= 2
        if self.state != 3:
            assert in_work == 0

    def teardown(self) -> None:
        self.node.destroy_node()
        self.context.try_shutdown()
        self.folder.cleanup()


def test_any_row_of_transitions_frames_and_parameters() -> None:
    def play(rows: int) -> None:
        run_state_machine_as_test(
            Flight,
            settings=settings(
                max_examples=rows, stateful_step_count=STEPS, deadline=None, database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip

    if LONG:  # millions of lines would hide the one that counts
        for logger in ("inference_node", "rcl_lifecycle"):
            rclpy.logging.set_logger_level(logger, rclpy.logging.LoggingSeverity.FATAL)
    FUZZER.run(play, 10, STEPS)
    assert FUZZER.count >= 10
