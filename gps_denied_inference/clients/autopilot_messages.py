"""Between ROS messages and what the autopilot link works with."""

from __future__ import annotations

import math
import time

from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.node import Node
from sensor_msgs.msg import Imu, NavSatFix, NavSatStatus
from std_msgs.msg import Float64

from gps_denied_inference.autopilot.fix import AutopilotState, Fix
from gps_denied_inference.autopilot.incoming import position_sigma
from gps_denied_inference.autopilot.link import LinkStatus
from gps_denied_inference.autopilot.outgoing import Odometry
from gps_denied_inference.autopilot.policy import REASONS, LinkState
from gps_denied_inference.msg import AutopilotLinkStatus

ATTITUDE_SIGMA = math.radians(2.0)
"""rad, of roll and pitch as autopilots give them."""
HEADING_SIGMA = math.radians(5.0)
"""rad, of a magnetic heading."""
_STATES = {
    LinkState.STOPPED: AutopilotLinkStatus.STATE_STOPPED,
    LinkState.WAITING: AutopilotLinkStatus.STATE_WAITING,
    LinkState.ACTIVE: AutopilotLinkStatus.STATE_ACTIVE,
    LinkState.LOST: AutopilotLinkStatus.STATE_LOST,
}


def fix_of(message: NavSatFix, reset_counter: int) -> Fix:
    """Return a fix; one without covariance keeps NaN there, which the policy refuses."""
    known = message.position_covariance_type != NavSatFix.COVARIANCE_TYPE_UNKNOWN
    covariance = tuple(float(value) for value in message.position_covariance)
    return Fix(
        stamp_ns=message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec,
        latitude=float(message.latitude),
        longitude=float(message.longitude),
        altitude=float(message.altitude),
        covariance=covariance if known else (math.nan,) * 9,
        reset_counter=int(reset_counter),
    )


def odometry_of(message: OdometryMessage, reset_counter: int) -> Odometry:
    """Return an odometry in ENU and FLU; its quality falls with the standard deviation."""
    place, turn = message.pose.pose.position, message.pose.pose.orientation
    speed, rate = message.twist.twist.linear, message.twist.twist.angular
    covariance = [float(value) for value in message.pose.covariance]
    variance = max(covariance[0], covariance[7])
    quality = 1.0 / (1.0 + math.sqrt(variance)) if variance > 0.0 else math.nan
    return Odometry(
        stamp_ns=message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec,
        position=(place.x, place.y, place.z),
        orientation=(turn.x, turn.y, turn.z, turn.w),
        velocity=(speed.x, speed.y, speed.z),
        turn_rate=(rate.x, rate.y, rate.z),
        pose_covariance=covariance,
        twist_covariance=[float(value) for value in message.twist.covariance],
        reset_counter=reset_counter,
        quality=quality,
    )


class PriorPublishers:
    """``prior/fix``, ``prior/height`` and ``imu``, as ``task: localize`` reads them.

    Args:
        node: that owns the publishers.
        max_speed: of the aircraft over ground, m/s.
    """

    def __init__(self, node: Node, max_speed: float) -> None:
        self._node = node
        self._max_speed = max_speed
        self._fix = node.create_publisher(NavSatFix, "prior/fix", 5)
        self._height = node.create_publisher(Float64, "prior/height", 5)
        self._imu = node.create_publisher(Imu, "imu", 20)

    def attitude(self, state: AutopilotState, stamp_ns: int) -> None:
        """Publish the attitude: body FLU to ENU."""
        if state.orientation is None:
            return
        message = Imu()
        _stamp(message, stamp_ns, "base_link")
        turn = message.orientation
        turn.x, turn.y, turn.z, turn.w = state.orientation
        tilt, heading = ATTITUDE_SIGMA**2, HEADING_SIGMA**2
        message.orientation_covariance = [tilt, 0.0, 0.0, 0.0, tilt, 0.0, 0.0, 0.0, heading]
        message.angular_velocity_covariance[0] = -1.0  # not given
        message.linear_acceleration_covariance[0] = -1.0
        self._imu.publish(message)

    def position(self, state: AutopilotState, stamp_ns: int) -> None:
        """Publish the position and the height above ground, as far as they are known."""
        sigma = position_sigma(state, time.monotonic_ns(), self._max_speed)
        if math.isfinite(state.latitude) and math.isfinite(sigma):
            message = NavSatFix(latitude=state.latitude, longitude=state.longitude)
            _stamp(message, stamp_ns, "base_link")
            message.altitude = math.nan  # it says mean sea level, NavSatFix the ellipsoid
            message.status.status = NavSatStatus.STATUS_FIX
            variance = sigma * sigma
            message.position_covariance = [variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, 1e6]
            message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_APPROXIMATED
            self._fix.publish(message)
        height = state.height_above_ground
        if not math.isfinite(height):
            height = state.height_above_home
        if math.isfinite(height) and height > 0.0:
            self._height.publish(Float64(data=height))

    def destroy(self) -> None:
        """Give the publishers back."""
        for publisher in (self._fix, self._height, self._imu):
            self._node.destroy_publisher(publisher)


def status_of(snapshot: LinkStatus | None, detail: str) -> AutopilotLinkStatus:
    """Return the status message; without a link everything is said to be unknown."""
    message = AutopilotLinkStatus(detail=detail)
    message.heard = math.inf
    message.latency_p50 = message.latency_p95 = math.nan
    message.time_offset = message.time_uncertainty = math.nan
    if snapshot is None:
        return message
    autopilot = snapshot.autopilot
    message.state = _STATES[snapshot.state]
    message.detail = detail or sentence(snapshot)
    message.reason = snapshot.reason
    message.outcomes = sorted(snapshot.counts)
    message.outcome_counts = [snapshot.counts[name] for name in message.outcomes]
    message.autopilot = autopilot.kind
    message.armed = autopilot.armed
    message.gps_fix_type = autopilot.gps_fix_type
    message.gps_in_use = autopilot.gps_in_use
    message.yaw_aligned = autopilot.yaw_aligned
    message.heard = snapshot.heard
    message.latency_p50, message.latency_p95 = snapshot.latency_p50, snapshot.latency_p95
    message.time_offset = snapshot.time_offset
    message.time_uncertainty = snapshot.time_uncertainty
    message.resets = snapshot.resets
    message.clock_jumps = snapshot.clock_jumps
    message.restarts = snapshot.restarts
    message.packets_received = snapshot.received
    message.packets_lost = snapshot.lost
    message.packets_malformed = snapshot.malformed
    message.packets_sent = snapshot.sent
    message.send_failures = snapshot.send_failures
    message.odometry_sent = snapshot.odometry_sent
    message.odometry_refused = snapshot.odometry_refused
    return message


def sentence(snapshot: LinkStatus) -> str:
    """Return in one line what the link does, and why not more."""
    if math.isinf(snapshot.heard):
        return "no packet from an autopilot yet: check autopilot_url and the wiring"
    why = f": {snapshot.reason}, {REASONS[snapshot.reason]}" if snapshot.reason else ""
    gps = "; the autopilot's GPS is in use" if snapshot.autopilot.gps_in_use else ""
    return f"{snapshot.state.value}{why}{gps}"


def _stamp(message: Imu | NavSatFix, stamp_ns: int, frame: str) -> None:
    stamp_ns = max(stamp_ns, 0)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.header.frame_id = frame
