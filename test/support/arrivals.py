"""Positions as they arrived at the stand-in autopilot, whatever message brought them."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from stand_in_autopilot import StandInAutopilot

EXTERNAL_POSITION_ESTIMATE = 43003
WRAP_NS = 1_000_000_000_000
"""ns after which the link's time of transmission to ArduPilot begins anew."""


class Arrived(NamedTuple):
    """A position: ns of this computer's clock, degrees, m."""

    arrived_ns: int
    exposed_ns: int
    latitude: float
    longitude: float
    sigma: float


def px4_positions(autopilot: StandInAutopilot) -> list[Arrived]:
    """Return what GLOBAL_POSITION_SENSOR said, but for notices that there is none."""
    boot_ns = time.time_ns() - autopilot.boot_ns
    return [
        Arrived(
            _on_this_clock(arrived), (m.time_usec - m.processing_time) * 1000 + boot_ns,
            m.lat * 1e-7, m.lon * 1e-7, m.eph,
        )
        for arrived, m in list(autopilot.got["GLOBAL_POSITION_SENSOR"])
        if not m.flags
    ]  # fmt: skip


def ardupilot_positions(autopilot: StandInAutopilot) -> list[Arrived]:
    """Return what MAV_CMD_EXTERNAL_POSITION_ESTIMATE said; none of it may be NaN."""
    found = []
    for arrived, m in list(autopilot.got["COMMAND_INT"]):
        if m.command != EXTERNAL_POSITION_ESTIMATE:
            continue
        assert all(math.isfinite(value) for value in (m.param1, m.param2, m.param3))
        at = _on_this_clock(arrived)
        ago = (at - round((m.param1 - m.param2) * 1e9)) % WRAP_NS
        found.append(Arrived(at, at - ago, m.x * 1e-7, m.y * 1e-7, m.param3))
    return found


def _on_this_clock(monotonic: float) -> int:
    return time.time_ns() - round((time.monotonic() - monotonic) * 1e9)
