"""The soak's side of DDS: hears answers and statuses, asks for transitions."""

from __future__ import annotations

import struct
import threading
import time
from typing import Any

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_process import LATCHED
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from soak_books import Answer, Count

from gps_denied_inference.msg import (
    AutopilotLinkStatus,
    FeatureArray,
    InferenceStatus,
    LocalizationStatus,
)

NODE, LINK = "inference_node", "autopilot_link"
_NEXT = {
    State.PRIMARY_STATE_UNCONFIGURED: Transition.TRANSITION_CONFIGURE,
    State.PRIMARY_STATE_INACTIVE: Transition.TRANSITION_ACTIVATE,
}


def frame_of(data: bytes) -> tuple[int, int]:
    """Return life and number of the frame of a serialised answer: its header's ``frame_id``."""
    length = struct.unpack_from("<I", data, 12)[0]
    _, life, number = data[16 : 16 + length - 1].decode().split(":")
    return int(life), int(number)


class Monitor:
    """Hears all that the node says.

    Attributes:
        answers, counts: for the books.
        status: the newest ``~/status``; None until one came.
        located: newest numbers of frames looked at and fixes, of the localization.
        link: the newest status of the autopilot link; None until one came.
    """

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.node = rclpy.create_node("soak", context=self.context)
        self.answers: list[Answer] = []
        self.counts: list[Count] = []
        self.status: InferenceStatus | None = None
        self.link: AutopilotLinkStatus | None = None
        self.fixes: list[float] = []
        self.localizations: list[tuple[float, int, str]] = []
        node, create = self.node, self.node.create_subscription
        create(FeatureArray, f"{NODE}/features", self._answer, 1000, raw=True)
        create(InferenceStatus, f"{NODE}/status", self._status, LATCHED)
        create(LocalizationStatus, f"{NODE}/localization_status", self._localization, 100)
        create(AutopilotLinkStatus, f"{LINK}/status", self._link_status, LATCHED)
        self._change = {n: node.create_client(ChangeState, f"{n}/change_state")
                        for n in (NODE, LINK)}  # fmt: skip
        self._get = {n: node.create_client(GetState, f"{n}/get_state") for n in (NODE, LINK)}
        self._set = node.create_client(SetParameters, f"{NODE}/set_parameters")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(5)
        self._executor.shutdown(timeout_sec=1)
        self.node.destroy_node()
        self.context.try_shutdown()

    def _answer(self, data: bytes) -> None:
        self.answers.append(Answer(time.monotonic(), *frame_of(data)))

    def _status(self, message: InferenceStatus) -> None:
        self.status = message
        stamp = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
        made = stamp - time.time() + time.monotonic()
        self.counts.append(
            Count(
                made, message.state == InferenceStatus.STATE_ACTIVE,
                message.frames_in, message.frames_out, message.frames_dropped,
                dict(zip(message.drop_reasons, message.drop_counts, strict=True)),
            )
        )  # fmt: skip

    def _localization(self, message: LocalizationStatus) -> None:
        self.localizations.append((time.monotonic(), message.state, message.reason))
        if message.fix_accepted:
            self.fixes.append(time.monotonic())

    def _link_status(self, message: AutopilotLinkStatus) -> None:
        self.link = message

    @property
    def is_active(self) -> bool:
        return self.status is not None and self.status.state == InferenceStatus.STATE_ACTIVE

    def _call(self, client: Any, request: Any, limit: float) -> Any:
        done, end = threading.Event(), time.monotonic() + limit
        while not client.service_is_ready():
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return future.result() if done.wait(max(0.0, end - time.monotonic())) else None

    def state(self, name: str = NODE, limit: float = 5.0) -> int:
        """Return the primary state; 0 where it does not answer."""
        answer = self._call(self._get[name], GetState.Request(), limit)
        return int(answer.current_state.id) if answer is not None else 0

    def ask(self, transition: int, name: str = NODE, limit: float = 20.0) -> bool:
        """Request a transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self._call(self._change[name], request, limit)
        return bool(answer is not None and answer.success)

    def fire(self, transition: int) -> None:
        """Request a transition of the node and wait for nothing."""
        self._change[NODE].call_async(ChangeState.Request(transition=Transition(id=transition)))

    def bring_up(self, name: str = NODE, limit: float = 60.0) -> bool:
        """Configure and activate from whatever state it is in."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            state = self.state(name)
            if state == State.PRIMARY_STATE_ACTIVE:
                return True
            if state in _NEXT:
                self.ask(_NEXT[state], name)
            else:
                time.sleep(0.05)
        return False

    def set_parameter(self, name: str, value: ParameterValue) -> str | None:
        """Set one parameter; "" = taken, None = no answer, else why it was refused."""
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        answer = self._call(self._set, request, 5.0)
        if answer is None:
            return None
        return "" if answer.results[0].successful else str(answer.results[0].reason)
