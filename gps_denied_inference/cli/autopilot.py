"""``gdi autopilot``: what an autopilot says over MAVLink, and what it makes of positions."""

from __future__ import annotations

import argparse
import math
import sys
import threading
import time
from typing import TYPE_CHECKING

from gps_denied_inference.errors import ConfigurationError, InvalidParameterError

if TYPE_CHECKING:
    from gps_denied_inference.autopilot.link import LinkStatus

HELP = (
    "Listen to an autopilot on the bench: what it is, whether its estimator and clock are ready, "
    "and with --position what it answers to positions sent at 2 Hz. Exit code 1 where no autopilot "
    "was heard."
)
PERIOD = 0.5
"""s between two positions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "url",
        help="udp:ADDRESS:PORT (wait there), udpout:ADDRESS:PORT (send there), or a serial device",
    )
    parser.add_argument("--baud", type=int, default=921_600, help="of a serial device")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument(
        "--position",
        metavar="LAT,LON",
        help="send this position, degrees; only on the bench, propellers off",
    )
    parser.add_argument("--sigma", type=float, default=5.0, help="m, of that position (default 5)")


def run(args: argparse.Namespace) -> int:
    """Listen, send what is asked for, print what came of it."""
    from gps_denied_inference.autopilot.connection import Connection
    from gps_denied_inference.autopilot.fix import Fix
    from gps_denied_inference.autopilot.link import AutopilotLink
    from gps_denied_inference.autopilot.policy import PolicyLimits

    if not (math.isfinite(args.seconds) and args.seconds > 0.0):
        raise InvalidParameterError("seconds", args.seconds, "a finite number > 0")
    place = _place(args.position)
    if not (math.isfinite(args.sigma) and args.sigma > 0.0):
        raise InvalidParameterError("sigma", args.sigma, "a finite number > 0")
    connection = Connection(args.url, args.baud)
    link = AutopilotLink(connection, PolicyLimits(max_sigma=max(50.0, args.sigma)))
    thread = threading.Thread(target=link.run, daemon=True)
    thread.start()
    link.start()
    variance = args.sigma**2
    covariance = (variance, 0.0, 0.0, 0.0, variance, 0.0, 0.0, 0.0, variance)
    end = time.monotonic() + args.seconds
    try:
        while time.monotonic() < end:
            if place is not None:
                link.offer_fix(Fix(time.time_ns(), *place, math.nan, covariance))
            if sys.stderr.isatty():
                print(f"\r\033[K{summary(link.snapshot())[0]}", end="", file=sys.stderr)
            time.sleep(PERIOD)
    except KeyboardInterrupt:
        pass
    finally:
        link.end()
        thread.join(5.0)
        connection.close()
    status = link.snapshot()
    print("\n".join(summary(status)))
    return 0 if status.received else 1


def _place(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        latitude, longitude = (float(word) for word in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--position '{text}': give LAT,LON in degrees") from error
    return latitude, longitude


def summary(status: LinkStatus) -> list[str]:
    """Return lines for people."""
    autopilot = status.autopilot
    if not status.received:
        return ["no packet came: check the address or device, the baud rate and the wiring"]
    clock = (
        f"{status.time_offset:.3f} s behind ours, within {status.time_uncertainty * 1e3:.1f} ms"
        if math.isfinite(status.time_uncertainty)
        else "not mapped: it answers no TIMESYNC"
    )
    height = autopilot.height_above_ground
    lines = [
        f"autopilot   {autopilot.kind or 'no heartbeat'},"
        f" {'armed' if autopilot.armed else 'disarmed'},"
        f" attitude {'ready' if autopilot.yaw_aligned else 'not ready'}",
        f"packets     {status.received} received, {status.lost} lost, {status.malformed} malformed",
        f"clock       {clock}",
        f"gps         fix type {autopilot.gps_fix_type}"
        f"{', in use' if autopilot.gps_in_use else ''}",
        f"position    {autopilot.latitude:.7f}, {autopilot.longitude:.7f}, height above ground "
        f"{height:.1f} m, above home {autopilot.height_above_home:.1f} m",
    ]
    if status.counts:
        outcomes = ", ".join(f"{name} {count}" for name, count in sorted(status.counts.items()))
        lines.append(f"positions   {outcomes}")
    for result, count in sorted(autopilot.command_results.items()):
        lines.append(f"answers     MAV_RESULT {result}: {count}")
    return lines
