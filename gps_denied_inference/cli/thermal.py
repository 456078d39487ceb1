"""``gdi thermal``: how hot this computer is, live, once, or recorded for a replay."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.storage.documents import write_json
from gps_denied_inference.thermal import SOURCE_NAMES, SourceChoice, explain_choice
from gps_denied_inference.thermal.monitor import ThermalMonitor
from gps_denied_inference.thermal.policy import ThermalPolicy
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState, ThrottleCause

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gps_denied_inference.thermal.replay import ThermalRecorder

HELP = (
    "Show temperatures, throttling and what the node would do about it. Live until interrupted; "
    "--once prints one reading. A recording (--record) can be played back here (--replay) and by "
    "the node (parameter thermal_replay_file)."
)

_STYLES = {
    ThermalLevel.UNKNOWN: "bold white on grey37",
    ThermalLevel.NOMINAL: "bold black on green",
    ThermalLevel.WARM: "bold black on yellow",
    ThermalLevel.THROTTLING: "bold white on dark_orange3",
    ThermalLevel.CRITICAL: "bold white on red",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--source", default="auto", choices=SOURCE_NAMES, help="default: auto")
    parser.add_argument("--device", type=int, default=0, help="GPU for source nvml (default: 0)")
    parser.add_argument(
        "--sysfs-root", type=Path, default=Path("/"), help="another root of /sys (default: /)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play a recording back")
    parser.add_argument("--record", type=Path, metavar="FILE", help="record (JSON lines)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the last reading as JSON")
    parser.add_argument("--once", action="store_true", help="one reading, then end")
    parser.add_argument("--period", type=float, default=1.0, help="s between readings (default: 1)")
    parser.add_argument(
        "--duration", type=float, default=math.inf, metavar="S", help="end after S seconds"
    )


def run(args: argparse.Namespace) -> int:
    """Do it, and return the exit code.

    Returns:
        0; 1 where ``--once`` finds no valid reading.
    """
    if math.isnan(args.duration) or args.duration <= 0:
        raise InvalidParameterError("--duration", args.duration, "above 0 s")
    choice = explain_choice(
        args.source, sysfs_root=args.sysfs_root, replay=args.replay, device=args.device
    )
    with ThermalMonitor(choice.source, args.period) as monitor:
        if args.once:
            # A slow source gets the time of its first reading, whatever the period is.
            monitor.wait_fresh(10.0)
            state = monitor.latest()
            _print(_view(state, choice))
            if args.record:
                _record([state], args.record)
            code = 0 if state.is_telemetry_available else 1
        else:
            state = _follow(monitor, choice, args)
            code = 0
    if args.json:
        write_json(args.json, report(state, choice))
    return code


def report(state: ThermalState, choice: SourceChoice) -> dict[str, Any]:
    """Return the reading and how its source was chosen, for ``--json``."""
    return {
        "source": choice.source.name,
        "passed_over": [{"source": name, "reason": why} for name, why in choice.passed_over],
        "state": state.to_dict(),
    }


def _follow(
    monitor: ThermalMonitor, choice: SourceChoice, args: argparse.Namespace
) -> ThermalState:
    """Show and record until the time is over, the recording ends or the user interrupts."""
    policy = ThermalPolicy()
    recorder = _recorder(args.record, monitor.source_name) if args.record else None
    end = time.monotonic() + args.duration
    state = monitor.latest()
    try:
        with _screen() as show:
            while time.monotonic() < end:
                # Twice the period: a reader that hangs is shown, and recorded, as what it is.
                monitor.wait_fresh(min(2 * args.period, max(end - time.monotonic(), 0.0)))
                newest = monitor.latest()
                if getattr(choice.source, "ended", False):
                    break
                state = policy.update(newest, time.monotonic()).written_into(newest)
                if recorder is not None:
                    recorder.write(state)
                show(_view(state, choice))
    except KeyboardInterrupt:
        # The usual way to end a live view: what was recorded is whole.
        pass
    finally:
        if recorder is not None:
            recorder.close()
            print(f"recorded {recorder.count} states in {args.record}", file=sys.stderr)
    if not sys.stdout.isatty():
        _print(_view(state, choice))
    return state


@contextlib.contextmanager
def _screen() -> Iterator[Callable[[RenderableType], None]]:
    """Give a function that redraws the live view; where there is no terminal it draws nothing."""
    if not sys.stdout.isatty():
        yield lambda view: None
        return
    from rich.live import Live

    with Live(console=_console(), auto_refresh=False) as live:
        yield lambda view: live.update(view, refresh=True)


def _recorder(path: Path, source: str) -> ThermalRecorder:
    from gps_denied_inference.thermal.replay import ThermalRecorder

    return ThermalRecorder(path, source)


def _record(states: list[ThermalState], path: Path) -> None:
    with _recorder(path, states[0].source) as recorder:
        for state in states:
            recorder.write(state)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _print(view: RenderableType) -> None:
    _console().print(view)


def _view(state: ThermalState, choice: SourceChoice) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (f" {state.level.name} ", _STYLES[state.level]),
        f"  {state.source}  ",
        (state.reason, "dim"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_row("throttled by", _causes(state))
    facts.add_row(
        "clock", f"{_number(state.clock, 1e-6, 'MHz')} of {_number(state.clock_max, 1e-6, 'MHz')}"
    )
    power = f"{_number(state.power, 1.0, 'W')} {state.power_mode}".strip()
    # Text, since names and reasons may hold what rich would take for its own markup.
    facts.add_row("power", Text(power))
    facts.add_row("load", _number(state.load, 100.0, "%"))
    facts.add_row("sample age", _number(state.sample_age, 1.0, "s"))
    facts.add_row("the node would", Text(state.action or "run without a limit"))
    sensors = Table("sensor", "kind", "degC", "limit", "margin / K", box=None, header_style="bold")
    for sensor in state.sensors:
        sensors.add_row(
            Text(sensor.name),
            sensor.kind.name.lower(),
            _number(sensor.temperature, 1.0, "") if sensor.online else "offline",
            _number(sensor.limit, 1.0, ""),
            _number(sensor.margin, 1.0, ""),
            style="" if sensor.online else "dim",
        )
    # The source "none" says in its reason why each of the others was passed over.
    passed = [
        Text(f"not {name}: {reason}", style="dim")
        for name, reason in choice.passed_over
        if choice.source.name != "none"
    ]
    return Group(head, facts, sensors, *passed)


def _causes(state: ThermalState) -> str:
    if not state.is_telemetry_available:
        return "not known"
    named = [
        (cause.name or "").lower().replace("_", " ")
        for cause in ThrottleCause
        if cause and cause in state.throttle_causes
    ]
    bits = f" (bits {state.throttle_bits:#x})" if state.throttle_bits else ""
    return (", ".join(named) or "nothing") + bits


def _number(value: float, scale: float, unit: str) -> str:
    return "-" if math.isnan(value) else f"{value * scale:.1f} {unit}".strip()
