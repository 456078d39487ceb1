"""How hot the computer is, whether it throttles, and what is done about it.

UNKNOWN never means cool. Sources are loaded only when they are asked for::

    with ThermalMonitor(choose_source("auto"), period=1.0) as monitor:
        state = monitor.latest()

Order of ``"auto"``: jtop (knows Jetson boards best), nvml (NVIDIA GPUs in a PC), sysfs (every
Linux computer), none. The first that gives a valid reading is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from gps_denied_inference.errors import (
    GpsDeniedInferenceError,
    RuntimeUnavailableError,
    UnknownNameError,
)
from gps_denied_inference.lazy import exports

if TYPE_CHECKING:
    from gps_denied_inference.thermal.assess import LevelLimits
    from gps_denied_inference.thermal.monitor import ThermalMonitor
    from gps_denied_inference.thermal.policy import PolicyConfig, ThermalAction, ThermalPolicy
    from gps_denied_inference.thermal.replay import ThermalRecorder, load_recording
    from gps_denied_inference.thermal.source import ThermalSource
    from gps_denied_inference.thermal.state import (
        SensorKind,
        ThermalLevel,
        ThermalSensor,
        ThermalState,
        ThrottleCause,
    )

__all__ = [
    "PolicyConfig",
    "SensorKind",
    "SourceChoice",
    "ThermalAction",
    "ThermalLevel",
    "ThermalMonitor",
    "ThermalPolicy",
    "ThermalRecorder",
    "ThermalSensor",
    "ThermalSource",
    "ThermalState",
    "ThrottleCause",
    "choose_source",
    "explain_choice",
    "load_recording",
]

if not TYPE_CHECKING:
    __getattr__ = exports(
        __name__,
        {
            "monitor": ("ThermalMonitor",),
            "policy": ("PolicyConfig", "ThermalAction", "ThermalPolicy"),
            "replay": ("ThermalRecorder", "load_recording"),
            "source": ("ThermalSource",),
            "state": (
                "SensorKind",
                "ThermalLevel",
                "ThermalSensor",
                "ThermalState",
                "ThrottleCause",
            ),
        },
    )

SourceName = Literal["auto", "jtop", "nvml", "sysfs", "replay", "none"]
AUTO_ORDER: tuple[SourceName, ...] = ("jtop", "nvml", "sysfs")
# How long "auto" waits for one source before it passes on to the next.
PROBE_TIMEOUT = 8.0
SOURCE_NAMES: tuple[SourceName, ...] = get_args(SourceName)


@dataclass(frozen=True)
class SourceChoice:
    """The source that was taken, and why each earlier one was not.

    Attributes:
        source: ready to be read.
        passed_over: (name, reason) in the order in which they were tried.
    """

    source: ThermalSource
    passed_over: tuple[tuple[str, str], ...] = ()


def choose_source(
    name: SourceName = "auto",
    *,
    sysfs_root: Path = Path("/"),
    replay: Path | None = None,
    device: int | str = 0,
    limits: LevelLimits | None = None,
) -> ThermalSource:
    """Return the thermal source ``name``; see :func:`explain_choice` for the arguments."""
    return explain_choice(
        name, sysfs_root=sysfs_root, replay=replay, device=device, limits=limits
    ).source


def explain_choice(
    name: SourceName = "auto",
    *,
    sysfs_root: Path = Path("/"),
    replay: Path | None = None,
    device: int | str = 0,
    limits: LevelLimits | None = None,
) -> SourceChoice:
    """Choose a thermal source and say what was passed over.

    Args:
        name: one of ``SOURCE_NAMES``. ``"auto"`` never fails: where nothing can be read it ends at
            the source ``none``, which says why. Every other name is taken or refused.
        sysfs_root: the tree that holds ``sys``, for sysfs and for the limits that jtop lacks.
        replay: a recording (``gdi thermal --record``); with ``"auto"`` it is taken.
        device: the GPU for nvml: its PCI bus id or UUID, or its index in NVML's order.
        limits: where the levels begin.

    Raises:
        UnknownNameError: no such source.
        RuntimeUnavailableError: the source that was asked for is not on this machine.
        ThermalReadError: the recording cannot be read.
    """
    if name not in SOURCE_NAMES:
        raise UnknownNameError("thermal source", name, SOURCE_NAMES)
    if name == "auto" and replay is not None:
        name = "replay"
    if name != "auto":
        return SourceChoice(_open(name, sysfs_root, replay, device, limits))
    passed: list[tuple[str, str]] = []
    for candidate in AUTO_ORDER:
        try:
            source, reason = _first_reading(candidate, sysfs_root, device, limits)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one is tried
            known = isinstance(error, (GpsDeniedInferenceError, TimeoutError))
            passed.append((candidate, str(error) if known else f"{type(error).__name__}: {error}"))
            continue
        if not reason:
            return SourceChoice(source, tuple(passed))
        source.close()
        passed.append((candidate, reason))
    from gps_denied_inference.thermal.source import NoSource

    why = "; ".join(f"{candidate}: {reason}" for candidate, reason in passed)
    return SourceChoice(NoSource(f"no thermal source: {why}"), tuple(passed))


def _open(
    name: SourceName,
    sysfs_root: Path,
    replay: Path | None,
    device: int | str,
    limits: LevelLimits | None,
) -> ThermalSource:
    if name == "jtop":
        from gps_denied_inference.thermal.jtop_source import JtopSource

        return JtopSource(sysfs_root=sysfs_root, limits=limits)
    if name == "nvml":
        from gps_denied_inference.thermal.nvml_source import NvmlSource

        return NvmlSource(device=device, limits=limits)
    if name == "sysfs":
        from gps_denied_inference.thermal.sysfs_source import SysfsSource

        return SysfsSource(sysfs_root, limits=limits)
    if name == "replay":
        if replay is None:
            raise RuntimeUnavailableError(
                "thermal source replay needs a recording",
                "record one with: gdi thermal --record FILE",
            )
        from gps_denied_inference.thermal.replay import ReplaySource

        return ReplaySource(replay)
    from gps_denied_inference.thermal.source import NoSource

    return NoSource("thermal source none was asked for")


def _first_reading(
    name: SourceName, sysfs_root: Path, device: int | str, limits: LevelLimits | None
) -> tuple[ThermalSource, str]:
    """Open ``name`` and read it once; return why it gives no valid reading, '' where it does."""
    from gps_denied_inference.thermal.deadline import within

    def probe() -> tuple[ThermalSource, str]:
        source = _open(name, sysfs_root, None, device, limits)
        try:
            state = source.read()
        except GpsDeniedInferenceError as error:
            return source, str(error)
        return source, "" if state.is_telemetry_available else state.reason

    return within(PROBE_TIMEOUT, probe, f"source {name}")
