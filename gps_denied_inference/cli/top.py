"""``gdi top``: a live table of a running node's ``~/status``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import ConfigurationError, RuntimeUnavailableError

if TYPE_CHECKING:
    from rich.console import RenderableType

HELP = (
    "Show what a running node really runs and how it fares: state, runtime, frames, drops, "
    "latencies, temperature. Needs ROS 2; leave with Ctrl-C."
)

STATES = {
    0: "unknown",
    1: "unconfigured",
    2: "inactive",
    3: "active",
    4: "finalized",
    10: "configuring",
}
THERMAL_LEVELS = ("UNKNOWN", "NOMINAL", "WARM", "THROTTLING", "CRITICAL")
_STALE_AFTER = 3.0  # s without a status: the node publishes at 1 Hz and on change


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "node", nargs="?", default="/inference_node", help="the node's full name (/inference_node)"
    )
    parser.add_argument("--once", action="store_true", help="print one table and leave")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="s to wait for a first status"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last status")


def run(args: argparse.Namespace) -> int:
    """Show the table until Ctrl-C, or once."""
    from rich.console import Console
    from rich.live import Live

    from gps_denied_inference.storage.documents import write_json

    try:
        from gps_denied_inference.clients.status_listener import StatusListener
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"'gdi top' listens to a running node, and ROS 2 or the built package is missing "
            f"({error})",
            "source a ROS 2 installation and this package's workspace",
        ) from error

    console = Console()
    with StatusListener(args.node) as listener:
        if not listener.wait(args.timeout):
            raise ConfigurationError(
                f"no status from {args.node} within {args.timeout:g} s: is the node up, in this "
                "ROS_DOMAIN_ID, and is this its full name (ros2 node list)?"
            )
        try:
            if args.once:
                console.print(table(args.node, listener.status, listener.thermal, 0.0))
            else:
                with Live(console=console, refresh_per_second=4) as live:
                    while True:
                        listener.spin(0.25)
                        age = time.monotonic() - listener.received
                        live.update(table(args.node, listener.status, listener.thermal, age))
        except KeyboardInterrupt:
            sys.stderr.write("\n")
        finally:
            if args.json is not None:
                write_json(args.json, {"status": listener.status, "thermal": listener.thermal})
    return 0


def table(
    name: str, status: Mapping[str, Any], thermal: Mapping[str, Any] | None, age: float
) -> RenderableType:
    """Return one table of a status and, where there is one, a thermal state.

    Args:
        status, thermal: the messages as dicts of their fields.
        age: s since the status came in.
    """
    from rich.table import Table
    from rich.text import Text

    body = Table(title=Text(name), show_header=False, title_justify="left", min_width=72)
    body.add_column(style="bold", no_wrap=True)
    body.add_column(overflow="fold")
    for label, value in rows(status, thermal, age):
        body.add_row(label, Text(value))  # plain: error lines have square brackets
    return body


def rows(
    status: Mapping[str, Any], thermal: Mapping[str, Any] | None, age: float
) -> list[tuple[str, str]]:
    """Return the table's lines as plain text; what was not measured is a dash."""
    state = STATES.get(status["state"], f"state {status['state']}")
    if not math.isnan(status["progress"]):
        state += f" {status['progress']:.0%}"
    if age > _STALE_AFTER:
        state += f" (silent for {age:.0f} s)"
    lines = [("state", state)]
    if status["detail"]:
        lines.append(("detail", status["detail"]))
    if status["task_detail"]:
        lines.append(("task" if status["task_ok"] else "no result", status["task_detail"]))
    if status["provider"]:
        lines.append(
            (
                "runtime",
                f"{status['runtime']} {status['runtime_version']}, {status['provider']}, "
                f"{status['device']}, {status['precision']}",
            )
        )
        lines.append(
            (
                "model",
                f"{status['model']} {status['model_sha256'][:12]}, "
                f"{status['engine_width']}x{status['engine_height']} px, "
                f"K = {status['max_keypoints']}, task {status['task']}",
            )
        )
    if status["selection"]:
        lines.append(("passed over", status["selection"]))
    in_work = status["frames_in"] - status["frames_out"] - status["frames_dropped"]
    lines.append(
        (
            "frames",
            f"{status['frames_in']} in, {status['frames_out']} out, "
            f"{status['frames_dropped']} dropped, {in_work} in work",
        )
    )
    for reason, count in zip(status["drop_reasons"], status["drop_counts"], strict=True):
        lines.append(("", f"{reason}: {count}"))
    lines.append(("rate", _number(status["rate"], "Hz")))
    lines.append(("last frame", _number(status["time_since_frame"], "s ago")))
    for camera in status["cameras"]:
        lines += _camera(camera)
    for stage, *latencies in zip(
        status["stages"],
        status["latency_p50"],
        status["latency_p95"],
        status["latency_p99"],
        strict=True,
    ):
        text = " / ".join(f"{1e3 * value:.1f}" for value in latencies)
        lines.append((stage.replace("_", " "), f"{text} ms (p50 / p95 / p99)"))
    if thermal is not None:
        lines.append(("thermal", _thermal(thermal)))
    return lines


def _camera(camera: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of one camera: its counts where it has a name, its stamps, its images."""
    name, lines = camera["name"], []
    if name:
        lines.append(
            (
                name,
                f"{camera['frames_in']} in, {camera['frames_out']} out, "
                f"{camera['frames_dropped']} dropped, {_number(camera['rate'], 'Hz')}",
            )
        )
        for reason, count in zip(camera["drop_reasons"], camera["drop_counts"], strict=True):
            lines.append(("", f"{reason}: {count}"))
    if not math.isnan(camera["stamp_period"]):
        faults = "".join(
            f", {camera[field]} {what}"
            for field, what in (
                ("stamps_zero", "zero"),
                ("stamps_repeated", "repeated"),
                ("stamps_backward", "backward"),
                ("stamp_gaps", f"gaps of {camera['frames_missing']} frames in all"),
            )
            if camera[field]
        )
        jitter = 1e3 * camera["stamp_jitter"]
        lines.append(
            (
                f"{name} stamps".strip(),
                f"every {1e3 * camera['stamp_period']:.1f} ms, jitter {jitter:.1f} ms{faults}",
            )
        )
    elif camera["stamps_zero"]:
        lines.append((f"{name} stamps".strip(), f"{camera['stamps_zero']} zero"))
    if not math.isnan(camera["brightness"]):
        lines.append(
            (
                f"{name} images".strip(),
                f"brightness {camera['brightness']:.2f}, {camera['dark_share']:.0%} dark, "
                f"{camera['bright_share']:.0%} bright, blur {_share(camera['blur'])}",
            )
        )
    return lines


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _thermal(thermal: Mapping[str, Any]) -> str:
    level = thermal["level"]
    text = THERMAL_LEVELS[level] if level < len(THERMAL_LEVELS) else f"level {level}"
    hottest = max(
        (sensor["temperature"] for sensor in thermal["sensors"] if sensor["online"]),
        default=float("nan"),
    )
    if not math.isnan(hottest):
        text += f", hottest sensor {hottest:.0f} degrees Celsius"
    text += f" ({thermal['source']})"
    return f"{text}: {thermal['action'] or thermal['reason']}"


def _number(value: float, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value:.1f} {unit}"
