"""Map fixes to an autopilot, and its attitude and position back, over MAVLink. No ROS here."""

from typing import TYPE_CHECKING

from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.autopilot.connection import Connection
    from gps_denied_inference.autopilot.fix import AutopilotState, Fix
    from gps_denied_inference.autopilot.link import AutopilotLink, LinkStatus
    from gps_denied_inference.autopilot.policy import FixPolicy, PolicyLimits
    from gps_denied_inference.autopilot.settings import LinkSettings

__all__ = [
    "AutopilotLink",
    "AutopilotState",
    "Connection",
    "Fix",
    "FixPolicy",
    "LinkSettings",
    "LinkStatus",
    "PolicyLimits",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "connection": ("Connection",),
            "fix": ("AutopilotState", "Fix"),
            "link": ("AutopilotLink", "LinkStatus"),
            "policy": ("FixPolicy", "PolicyLimits"),
            "settings": ("LinkSettings",),
        },
    )
