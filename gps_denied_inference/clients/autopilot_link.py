"""The lifecycle node between localization and an autopilot.

Subscribes ``fix`` (sensor_msgs/NavSatFix), ``localization_status`` (for announced jumps) and
``odometry`` (nav_msgs/Odometry). Publishes what ``task: localize`` reads as priors, ``prior/fix``,
``prior/height`` and ``imu``, and ``~/status`` and ``/diagnostics``.

Threads: the link's own thread reads the port and publishes the priors; the executor's threads
offer fixes and publish the status.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import NavSatFix

from gps_denied_inference.autopilot.connection import Connection
from gps_denied_inference.autopilot.geoid import Geoid, find_grid
from gps_denied_inference.autopilot.link import AutopilotLink, LinkStatus
from gps_denied_inference.autopilot.policy import LinkState
from gps_denied_inference.autopilot.settings import LinkSettings
from gps_denied_inference.clients import autopilot_messages as messages
from gps_denied_inference.clients.px4_topic import Px4Topic
from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.msg import AutopilotLinkStatus, LocalizationStatus
from gps_denied_inference.node import process, qos
from gps_denied_inference.node.managed import ManagedNode
from gps_denied_inference.node.parameters import descriptor
from gps_denied_inference.node.transitions import FAILURE, SUCCESS, reported

PRIOR_PERIOD_NS = 200_000_000
"""ns between two positions and heights for localization; attitudes pass at their own rate."""
_LEVELS = {
    LinkState.STOPPED: DiagnosticStatus.OK,
    LinkState.WAITING: DiagnosticStatus.WARN,
    LinkState.ACTIVE: DiagnosticStatus.OK,
    LinkState.LOST: DiagnosticStatus.ERROR,
}


class AutopilotLinkNode(ManagedNode):
    """See the module."""

    def __init__(self, node_name: str = "autopilot_link", **arguments: Any) -> None:
        super().__init__(node_name, **arguments)
        self._rows = {row.name: row for row in LinkSettings.table()}
        for row in self._rows.values():
            self.declare_parameter(row.name, row.default, descriptor(row))
        self._link: AutopilotLink | None = None
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._px4: Px4Topic | None = None
        self._priors: messages.PriorPublishers | None = None
        self._taken: list[Any] = []
        self._resets: dict[int, int] = {}
        self._reset_counter = 0
        self._due = {"prior": 0}
        self._detail = ""
        self._group = MutuallyExclusiveCallbackGroup()
        self._status = self.create_publisher(AutopilotLinkStatus, "~/status", qos.STATE)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = self.create_timer(
            1.0,
            self._publish_status,
            callback_group=self._group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._publish_status()

    # Transitions -------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, open the port, begin to listen."""
        try:
            self._configure()
        except ConfigurationError as error:
            self._release()
            self._detail = f"configure failed: {error}"
            self.get_logger().error(self._detail)
            self._publish_status()
            return FAILURE
        self._detail = ""
        self._publish_status()
        return super().on_configure(state)

    def _configure(self) -> None:
        settings = self._read()
        geoid = None
        if settings.geoid_grid != "none":
            grid = find_grid(settings.geoid_grid)
            if grid is None:
                self.get_logger().warning(
                    "no egm96_15.gtx of PROJ here: heights above mean sea level are left out "
                    "(apt install proj-data, or set geoid_grid)"
                )
            else:
                geoid = Geoid(grid)
        self._timer.timer_period_ns = round(1e9 / settings.status_rate)
        if settings.px4_topic:
            self._px4 = Px4Topic(self, settings.px4_topic, settings.agp_id)
        self._connection = Connection(
            settings.autopilot_url, settings.baud, settings.system_id, settings.component_id
        )
        self._link = AutopilotLink(
            self._connection,
            settings.limits(),
            kind=settings.autopilot,
            source_id=settings.agp_id,
            geoid=geoid,
            clock=lambda: int(self.get_clock().now().nanoseconds),
            px4_topic=self._px4.publish if self._px4 is not None else None,
        )
        self._priors = messages.PriorPublishers(self, settings.max_speed)
        self._link.on_state = self._pass_on
        self._subscribe(settings)
        self._thread = threading.Thread(target=self._link.run, name="mavlink", daemon=True)
        self._thread.start()
        self.get_logger().info(f"listening for an autopilot on {settings.autopilot_url}")

    def _subscribe(self, settings: LinkSettings) -> None:
        make, group = self.create_subscription, self._group
        self._taken = [
            make(NavSatFix, "fix", self._take_fix, 10, callback_group=group),
            make(LocalizationStatus, "localization_status", self._take_status, 10,
                 callback_group=group),
        ]  # fmt: skip
        if settings.send_odometry:
            self._taken.append(
                make(OdometryMessage, "odometry", self._take_odometry, 10, callback_group=group)
            )

    def _read(self) -> LinkSettings:
        return LinkSettings.from_mapping(
            {name: self.get_parameter(name).value for name in self._rows}
        )

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let fixes through."""
        assert self._link is not None
        self._link.start()
        self.get_logger().info("fixes go to the autopilot")
        self._publish_status()
        return super().on_activate(state)

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let no fix through; the autopilot is still heard."""
        if self._link is not None:
            self._link.stop()
        self.get_logger().info("no more fixes go to the autopilot")
        self._publish_status()
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the port back."""
        self._release()
        self._publish_status()
        return SUCCESS

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back from any state."""
        self._release()
        self._publish_status()
        self.is_finalized = True
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back; the node can be configured again."""
        self._release()
        self._detail = "released after an error, see the log"
        self._publish_status()
        return SUCCESS

    def _release(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.stop()
            link.end()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(5.0)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        for subscription in self._taken:
            self.destroy_subscription(subscription)
        self._taken = []
        priors, self._priors = self._priors, None
        if priors is not None:
            priors.destroy()
        px4, self._px4 = self._px4, None
        if px4 is not None:
            px4.destroy()

    def destroy_node(self) -> None:
        """Give everything back, then the node itself."""
        self._release()
        super().destroy_node()

    # Fixes out, priors in ------------------------------------------------------------------------

    def _take_status(self, message: LocalizationStatus) -> None:
        self._reset_counter = message.reset_counter

    def _take_fix(self, message: NavSatFix) -> None:
        link = self._link
        if link is not None:
            link.offer_fix(messages.fix_of(message, self._reset_counter))

    def _take_odometry(self, message: OdometryMessage) -> None:
        link = self._link
        if link is not None:
            link.offer_odometry(messages.odometry_of(message, self._reset_counter))

    def _pass_on(self, kind: str, state: Any, stamp_ns: int | None) -> None:
        """Publish what the autopilot said; called in the link's thread."""
        priors = self._priors
        if priors is None or not self.context.ok():
            return
        now_ns = int(self.get_clock().now().nanoseconds)
        stamp = now_ns if stamp_ns is None else stamp_ns
        if kind in ("ATTITUDE", "ATTITUDE_QUATERNION"):
            priors.attitude(state, stamp)
        elif now_ns - self._due["prior"] >= PRIOR_PERIOD_NS or now_ns < self._due["prior"]:
            self._due["prior"] = now_ns
            priors.position(state, stamp)

    # Status --------------------------------------------------------------------------------------

    def _publish_status(self) -> None:
        if not self.context.ok():
            return
        link = self._link
        snapshot = link.snapshot() if link is not None else None
        stamp = self.get_clock().now().to_msg()
        message = messages.status_of(snapshot, self._detail)
        message.header.stamp = stamp
        self._status.publish(message)
        report = DiagnosticArray(status=[self._diagnosis(snapshot)])
        report.header.stamp = stamp
        self._diagnostics.publish(report)

    def _diagnosis(self, snapshot: LinkStatus | None) -> DiagnosticStatus:
        name = f"{self.get_fully_qualified_name()}: autopilot link"
        if snapshot is None:
            failed = bool(self._detail)
            level = DiagnosticStatus.ERROR if failed else DiagnosticStatus.OK
            text = self._detail or "not configured"
            return DiagnosticStatus(level=level, name=name, message=text, hardware_id="autopilot")
        values = {
            "outcomes": ", ".join(f"{k} {v}" for k, v in sorted(snapshot.counts.items())),
            **{
                key: f"{value}"
                for key, value in dataclasses.asdict(snapshot).items()
                if isinstance(value, (int, float))
            },
        }
        return DiagnosticStatus(
            level=_LEVELS[snapshot.state],
            name=name,
            message=messages.sentence(snapshot),
            hardware_id=snapshot.autopilot.kind or "autopilot",
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is shut down or signalled. Returns the process's exit code."""
    return process.main(args, AutopilotLinkNode)
