"""The parameters of the autopilot link, one row each."""

from __future__ import annotations

from dataclasses import dataclass

from gps_denied_inference.autopilot.fix import AskedKind
from gps_denied_inference.autopilot.policy import PolicyLimits
from gps_denied_inference.parameter import Table, setting


@dataclass(frozen=True)
class LinkSettings(Table):
    """Valid settings of the link."""

    autopilot_url: str = setting(
        "udp:127.0.0.1:14540",
        "Where the autopilot is: 'udp:ADDRESS:PORT' waits for it there, 'udpout:ADDRESS:PORT' "
        "sends there, anything else is a serial device.",
    )
    baud: int = setting(921_600, "Of a serial device.", unit="Bd", minimum=9_600, maximum=4_000_000)
    autopilot: AskedKind = setting("auto", "What it is; 'auto' takes what its heartbeat says.")
    system_id: int = setting(1, "MAVLink system id of the aircraft.", minimum=1, maximum=255)
    component_id: int = setting(197, "MAVLink component id of this link.", minimum=1, maximum=255)
    agp_id: int = setting(
        1, "PX4: id of this source of positions, as EKF2_AGP0_ID names it.", minimum=1, maximum=255
    )
    max_fix_age: float = setting(
        1.0, "A fix older than this is not sent.", unit="s", minimum=0.05, maximum=5.0
    )
    max_fix_sigma: float = setting(
        50.0, "A fix less certain than this is not sent.", unit="m", minimum=0.1, maximum=10_000.0
    )
    min_fix_sigma: float = setting(
        0.5,
        "No fix is reported as more certain than this.",
        unit="m",
        minimum=0.01,
        maximum=1_000.0,
    )
    max_fix_rate: float = setting(
        10.0, "Positions sent at most.", unit="Hz", minimum=0.1, maximum=100.0
    )
    max_speed: float = setting(
        40.0,
        "Of the aircraft over ground: a fix farther from the last one is not sent, unless the "
        "localizer has announced a reset.",
        unit="m/s",
        minimum=0.1,
        maximum=1_000.0,
    )
    fix_gate: float = setting(
        5.0,
        "Standard deviations that two fixes may lie apart beyond the flight between them.",
        minimum=1.0,
        maximum=100.0,
    )
    link_timeout: float = setting(
        3.0,
        "Without a packet for this long the autopilot counts as gone.",
        unit="s",
        minimum=0.5,
        maximum=60.0,
    )
    lost_after: float = setting(
        5.0,
        "Without a fix to send for this long the position is reported lost.",
        unit="s",
        minimum=0.5,
        maximum=600.0,
    )
    stop_on_gps: bool = setting(
        False, "Send nothing while the autopilot's GPS is in use (ArduPilot never takes it then)."
    )
    send_odometry: bool = setting(
        False, "Also send ODOMETRY from 'odometry', for local fusion; ArduPilot wants 4 Hz or more."
    )
    geoid_grid: str = setting(
        "",
        "PROJ's egm96_15.gtx, for heights above mean sea level; empty = where proj-data puts it, "
        "'none' = leave those heights out.",
    )
    px4_topic: str = setting(
        "",
        "Publish px4_msgs/AuxGlobalPosition on this topic instead of MAVLink (uXRCE-DDS), "
        "e.g. '/fmu/in/aux_global_position_v1'; empty = MAVLink.",
    )
    status_rate: float = setting(
        2.0, "Rate of ~/status and /diagnostics.", unit="Hz", minimum=0.1, maximum=50.0
    )

    def limits(self) -> PolicyLimits:
        """Return what the policy goes by.

        Raises:
            InvalidParameterError: bounds that do not go together.
        """
        return PolicyLimits(
            max_age=self.max_fix_age,
            max_sigma=self.max_fix_sigma,
            min_sigma=self.min_fix_sigma,
            max_rate=self.max_fix_rate,
            max_speed=self.max_speed,
            gate=self.fix_gate,
            link_timeout=self.link_timeout,
            lost_after=self.lost_after,
            stop_on_gps=self.stop_on_gps,
        )
