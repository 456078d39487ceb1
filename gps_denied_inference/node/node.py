"""The managed node that owns the accelerator.

::

    unconfigured --configure--> inactive --activate--> active
         ^                        |  ^                   |
         +--------cleanup---------+  +----deactivate-----+

configure checks the parameters, passes the gate, builds or loads the engines and warms them up;
activate starts frames; cleanup, shutdown and errors give everything back. A failed configure gives
back what it had taken, says why in one line (log and ``~/status``) and may be retried.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter

from gps_denied_inference.errors import (
    ConfigurationError,
    GpsDeniedInferenceError,
    InferenceHungError,
)
from gps_denied_inference.msg import InferenceStatus
from gps_denied_inference.node.cameras import Cameras
from gps_denied_inference.node.diagnostics import DiagnosticsPublisher
from gps_denied_inference.node.frame_worker import FrameWorker
from gps_denied_inference.node.localization import Localization
from gps_denied_inference.node.managed import ManagedNode
from gps_denied_inference.node.parameters import NodeParameters
from gps_denied_inference.node.rclpy_compat import RCLError
from gps_denied_inference.node.recovery import Recovery
from gps_denied_inference.node.status import StatusPublisher, camera_status
from gps_denied_inference.node.thermal_publisher import ThermalStatePublisher
from gps_denied_inference.node.transitions import FAILURE, SUCCESS, described, reported, traced
from gps_denied_inference.pipeline.accounting import FrameAccounting, summed_up
from gps_denied_inference.runtimes.memory import apart_from_frames, give_back_freed
from gps_denied_inference.runtimes.serial_thread import SerialThread
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings
from gps_denied_inference.thermal.policy import ThermalAction
from gps_denied_inference.thermal.state import ThermalState


class InferenceNode(ManagedNode):
    """Camera frames in; features, tracks and matches out.

    Subscribes ``image`` (sensor_msgs/Image) or ``image/compressed``, ``camera_info``,
    ``reference/image``. Publishes ``~/features``, ``~/matches``, ``~/feature_cloud``,
    ``~/debug_image``, ``~/thermal_state``, ``~/status`` and ``/diagnostics``. With ``camera_names``
    each camera has topics of its own: ``left/image``, ``~/left/features``. Needs an executor of
    several threads, so that state and services answer while configure builds an engine.
    """

    def __init__(
        self,
        node_name: str = "inference_node",
        *,
        enable_communication_interface: bool = True,
        **node_arguments: Any,
    ) -> None:
        super().__init__(
            node_name,
            enable_communication_interface=enable_communication_interface,
            **node_arguments,
        )
        self.broken = ""
        """Why the last transition broke, in one line, until the status says it."""
        self._engine_thread = SerialThread("inference")
        self._session: InferenceSession | None = None
        self._worker: FrameWorker | None = None
        self._thermal: ThermalStatePublisher | None = None
        self._cameras: Cameras | None = None
        self._localization: Localization | None = None
        self._unused_references: list[Any] = []
        self._accounts = {"": FrameAccounting()}
        self._status = StatusPublisher(self)
        self._diagnostics = DiagnosticsPublisher(self)
        self._settings_table = NodeParameters(
            self,
            lambda: self._status.state != InferenceStatus.STATE_UNCONFIGURED,
            self._apply_dynamic,
        )
        self._settings = Settings()
        self.recovery = Recovery(self, lambda: self._settings, self._publish_status)
        self._warned: set[str] = set()
        self._status_group = MutuallyExclusiveCallbackGroup()
        # A steady clock: with use_sim_time, a simulation that stands still must not silence them.
        self._status_timer = self.create_timer(
            1.0,
            self._publish_status,
            callback_group=self._status_group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._warn_of_unknown_parameters(topics=False)
        self._publish_status()

    # Transitions -------------------------------------------------------------------------------

    def transition_ended(self) -> None:
        """Publish the state that the lifecycle is in now."""
        self._publish_status()
        self.is_finalized = self._status.state == InferenceStatus.STATE_FINALIZED

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check, gate, build, load, warm up; nothing stays taken on failure."""
        self._say("checking parameters", 0.0)
        try:
            with apart_from_frames():
                self._configure()
        except BaseException as error:  # noqa: BLE001 - a library may raise anything
            self._release()
            failure = f"configure failed: {described(error)}"
            self.get_logger().error(failure)
            if not isinstance(error, GpsDeniedInferenceError):
                self.get_logger().debug(traced(error))
            self._status.change(failure)
            return FAILURE
        self._status.change("")
        return super().on_configure(state)

    def _configure(self) -> None:
        settings = self._settings = self._settings_table.read()
        if not self.recovery.is_running or tuple(self._accounts) != settings.cameras:
            self._accounts = {name: FrameAccounting() for name in settings.cameras}
        self._status_timer.timer_period_ns = round(1e9 / settings.status_rate)
        self._thermal = ThermalStatePublisher(self, settings, self._obey)
        session = InferenceSession(settings, self._thermal.current)
        self._engine_thread.call(session.open, self._report_progress)
        self._session = session
        self._cameras = Cameras(self, settings, self._accounts)
        if settings.task == "localize":
            self._localization = Localization(self, settings, self._report_progress)
            self._cameras.all[0].on_result = self._localization.frame
        readback = session.readback
        for name, reason in session.selection.passed_over if session.selection else ():
            self.get_logger().info(f"runtime {name} passed over: {reason}")
        self.get_logger().info(
            f"running {settings.model} on {readback.runtime} {readback.version} "
            f"({readback.provider}, {readback.device}, {readback.precision}), "
            f"{settings.image_width}x{settings.image_height}, K = {settings.max_keypoints}, "
            f"loaded in {session.handle.load_time:.2f} s"
        )

    def _report_progress(self, share: float, what: str) -> None:
        if self.interrupted.is_set() or not self.context.ok():
            raise ConfigurationError("interrupted: the process is shutting down")
        self._say(what, share)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start taking frames."""
        try:
            if self._thermal is not None:
                # What is commanded must follow from now, not from the last tick of the timer.
                self._thermal.publish()
            action = self._thermal.action if self._thermal is not None else None
            if (
                self._settings.thermal_refuse_activation
                and action is not None
                and not action.may_activate
            ):
                raise ConfigurationError(f"too hot to activate: {action.description}")
            assert self._session is not None
            assert self._cameras is not None
            result = super().on_activate(state)
            if result != SUCCESS:
                return result
            self._session.restart_tracks()
            worker = FrameWorker(
                self._session, self._cameras.all, self.get_logger(), self._engine_thread
            )
            self._worker = worker
            self._apply_dynamic(self._settings)
            self._obey(action)
            for place, reference in enumerate(self._unused_references):
                worker.offer_reference(reference, place)
            if self._localization is not None:
                self._localization.start()
            worker.start()
            self._cameras.subscribe(worker)
            self.recovery.begin(worker, self._session, self._localization)
            self._warn_of_unknown_parameters()
        except ConfigurationError as error:
            self.get_logger().error(f"activate refused: {error}")
            self._status.change(f"activate refused: {error}")
            return FAILURE
        for camera in self._cameras.all:
            self.get_logger().info(
                f"active: frames from {camera.inputs.topic}, camera_info from "
                f"{camera.inputs.calibration_topic}"
            )
        self._status.change(action.description if action else "")
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking frames; the engine stays loaded."""
        self._stop_frames()
        result = super().on_deactivate(state)
        account = summed_up(list(self._accounts.values()))
        self.get_logger().info(
            f"inactive: {account.frames_out} of {account.frames_in} frames answered since configure"
        )
        self._status.change("")
        return result

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the engine and the publishers back."""
        self._release()
        self._status.change("")
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back from any state; the process may end."""
        self._release()
        self._status.change("")
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back; the node can be configured again."""
        cause, self.broken = self.broken, ""
        try:
            self._release()
        except BaseException as error:  # noqa: BLE001 - nothing comes after on_error
            self.get_logger().fatal(f"releasing after an error broke: {described(error)}")
            self.get_logger().debug(traced(error))
            return FAILURE
        detail = f"released after an error: {cause}" if cause else "released after an error"
        self._status.change(detail)
        return SUCCESS

    def _warn_of_unknown_parameters(self, *, topics: bool = True) -> None:
        """Name each parameter that was given and that nothing reads, once.

        ``topics``: of topics too, which are all there once the node is active.
        """
        for line in self._settings_table.unknown_overrides():
            if line not in self._warned and (topics or "'qos_overrides." not in line):
                self._warned.add(line)
                self.get_logger().warning(line)

    def _stop_frames(self) -> None:
        self.recovery.end()
        if self._cameras is not None:
            self._cameras.unsubscribe()
        worker, self._worker = self._worker, None
        try:
            if worker is not None:
                self._unused_references = worker.stop(self.recovery.hung)
        except InferenceHungError:
            self._leave_engine()
            raise
        finally:
            if self._localization is not None:
                self._localization.stop(self.recovery.search_hung)

    def _leave_engine(self) -> None:
        """Leave thread and engine to a forward pass that hangs; if it ever ends, both go."""
        self.has_hung = True
        if self._session is not None:
            self._engine_thread.submit(self._session.close)
        self._engine_thread.close(wait=False)
        self._session, self._engine_thread = None, SerialThread("inference")

    def _release(self) -> None:
        """Give back whatever is held, in the reverse order of taking it."""
        with suppress(InferenceHungError):
            self._stop_frames()
        self._unused_references = []
        localization, self._localization = self._localization, None
        if localization is not None:
            localization.destroy()
        session, self._session = self._session, None
        if session is not None:
            self._engine_thread.call(session.close)
        cameras, self._cameras = self._cameras, None
        if cameras is not None:
            cameras.destroy()
        thermal, self._thermal = self._thermal, None
        if thermal is not None:
            thermal.destroy()
        give_back_freed()

    # Frames and state --------------------------------------------------------------------------

    def thermal_state(self) -> ThermalState:
        """Return the newest thermal state; level UNKNOWN while nothing is read."""
        if self._thermal is None:
            return ThermalState.unknown("the node is not configured")
        return self._thermal.current()

    def _obey(self, action: ThermalAction | None) -> None:
        """Apply what the thermal policy commands; None lifts every limit."""
        worker = self._worker
        if worker is None:
            return
        limit = (
            0.0
            if action is None or np.isnan(action.frame_rate_limit)
            else float(action.frame_rate_limit)
        )
        keypoints = 0 if action is None else action.keypoint_limit
        before = (worker.thermal_rate_limit, worker.keypoint_limit)
        worker.thermal_rate_limit, worker.keypoint_limit = limit, keypoints
        if before != (limit, keypoints):
            description = action.description if action is not None else ""
            self.get_logger().warning(f"thermal policy: {description or 'limits lifted'}")
            if self._status.change(description, only_in=InferenceStatus.STATE_ACTIVE):
                self._publish_status()

    def _apply_dynamic(self, settings: Settings) -> None:
        self._settings = settings
        if self._thermal is not None:
            self._thermal.enable_policy(settings.thermal_policy)
        if self._worker is not None:
            self._worker.frame_rate_limit = settings.frame_rate_limit
            self._worker.per_frame_debug_log = settings.per_frame_debug_log

    def set_parameters_atomically(
        self, parameter_list: list[RosParameter[Any]]
    ) -> SetParametersResult:
        """Set parameters, all or none; what ``ros2 param set`` comes to."""
        refusal = self._settings_table.refuse_wrong_types(parameter_list)
        if refusal is not None:
            return refusal
        # What is as it was is no change, whatever the state: the node's own dump can be loaded.
        changes = self._settings_table.changed(parameter_list)
        if parameter_list and not changes:
            return SetParametersResult(successful=True)
        return super().set_parameters_atomically(changes)

    def _say(self, detail: str, progress: float) -> None:
        self._status.change(detail, progress)
        self._publish_status()

    def _publish_status(self) -> None:
        if not self.context.ok():
            return
        with self._status.lock:
            self.publish_status()

    def publish_status(self) -> InferenceStatus | None:
        """Publish and return the status; None of a context that has ended."""
        try:
            accounts, cameras = self._accounts, self._cameras
            if cameras is not None:
                states, silences = cameras.look(
                    self._session, self._worker, self._settings.stall_timeout
                )
            else:
                states = [camera_status(name, one.snapshot()) for name, one in accounts.items()]
                silences = []
            message = self._status.publish(
                self._session, summed_up(list(accounts.values())), states, self.recovery.fault
            )
            self._diagnostics.publish(
                message, self.thermal_state(), self._settings, silences, self.recovery
            )
        except RCLError:
            if self.context.ok():
                raise
            return None
        return message

    def destroy_node(self) -> None:
        """Give everything back, then the node itself."""
        self._release()
        self._engine_thread.close(wait=False)
        super().destroy_node()
