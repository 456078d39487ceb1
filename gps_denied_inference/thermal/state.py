"""How hot the computer is: the plain-Python twin of ``msg/ThermalState.msg``.

The fields, their units and their numbers are those of the message; only the header is replaced by
``stamp_ns``. Nothing here needs ROS or a vendor's library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum, IntFlag
from typing import Any

from gps_denied_inference.errors import ThermalReadError

NAN = math.nan
# What the message's fields can hold.
_FLOAT32_MOST = 3.4e38
_ENDS = {"stamp_ns": 10**9 << 31, "throttle_bits": 1 << 64, "keypoint_limit": 1 << 32}


class ThermalLevel(IntEnum):
    """``LEVEL_*`` of the message. UNKNOWN never means cool."""

    UNKNOWN = 0
    NOMINAL = 1
    WARM = 2
    THROTTLING = 3
    CRITICAL = 4


class ThrottleCause(IntFlag):
    """``CAUSE_*`` of the message."""

    NONE = 0
    THERMAL = 1
    POWER = 2
    OVER_CURRENT = 4
    OTHER = 128


class SensorKind(IntEnum):
    """``KIND_*`` of ``msg/ThermalSensor.msg``."""

    OTHER = 0
    CPU = 1
    GPU = 2
    SOC = 3
    MEMORY = 4
    BOARD = 5
    BATTERY = 6


@dataclass(frozen=True)
class ThermalSensor:
    """One temperature sensor.

    Attributes:
        name: as the source names it, e.g. ``"gpu-thermal"``.
        kind: what it sits on.
        online: False where the source lists the sensor but gives no valid reading.
        temperature: degree Celsius, NaN = not measured.
        limit: degree Celsius at which the hardware throttles, NaN = not known.
        margin: kelvin, ``limit - temperature``, NaN = not known.
    """

    name: str
    kind: SensorKind = SensorKind.OTHER
    online: bool = False
    temperature: float = NAN
    limit: float = NAN
    margin: float = NAN

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types; NaN becomes None, the kind its name."""
        return _plain(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ThermalSensor:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ThermalReadError: a field is missing or of the wrong type.
        """
        values = _fields_from(ThermalSensor, data)
        values["kind"] = _member(SensorKind, values.get("kind", SensorKind.OTHER))
        if not isinstance(values.get("name"), str):
            raise ThermalReadError(f"thermal sensor without a name: {dict(data)!r}")
        return ThermalSensor(**values)


@dataclass(frozen=True)
class ThermalState:
    """One sample of the computer's temperature, and what the node does about it.

    The default is the safe one: no telemetry, level UNKNOWN, no throttling claimed.

    Attributes:
        stamp_ns: system time in ns when the sample was taken, 0 = there never was one.
        source: ``"jtop"``, ``"nvml"``, ``"sysfs"``, ``"replay"`` or ``"none"``.
        level: see :class:`ThermalLevel`.
        is_telemetry_available: False exactly where ``level`` is UNKNOWN.
        thermal_throttle_active: the hardware reports thermal throttling now.
        throttle_causes: why the hardware slows down.
        throttle_bits: the source's own raw bits, 0..2**64 - 1.
        sensors: every sensor that the source lists, offline ones too.
        clock, clock_max: Hz, of the accelerator (CPU where there is none); NaN = not measured.
        power: W; NaN = not measured.
        load: 0..1, of the accelerator (CPU where there is none); NaN = not measured.
        power_mode: e.g. ``"MAXN"``; empty = not known.
        sample_age: s since the last valid sample was taken; NaN = there never was one.
        reason: why the level is what it is, one line.
        policy_enabled: the node acts on the level.
        frame_rate_limit: Hz, commanded; NaN = no limit.
        keypoint_limit: commanded; 0 = no limit.
        action: what is commanded and why, one line; empty = nothing.
    """

    stamp_ns: int = 0
    source: str = "none"
    level: ThermalLevel = ThermalLevel.UNKNOWN
    is_telemetry_available: bool = False
    thermal_throttle_active: bool = False
    throttle_causes: ThrottleCause = ThrottleCause.NONE
    throttle_bits: int = 0
    sensors: tuple[ThermalSensor, ...] = ()
    clock: float = NAN
    clock_max: float = NAN
    power: float = NAN
    load: float = NAN
    power_mode: str = ""
    sample_age: float = NAN
    reason: str = "no thermal source"
    policy_enabled: bool = False
    frame_rate_limit: float = NAN
    keypoint_limit: int = 0
    action: str = ""

    @staticmethod
    def unknown(
        reason: str, *, source: str = "none", sample_age: float = NAN, stamp_ns: int = 0
    ) -> ThermalState:
        """Return the safe state: nothing is known, and why.

        Args:
            reason: one line.
            source: the source that gave no reading.
            sample_age: s since its last valid sample, NaN = there never was one.
            stamp_ns: system time in ns of that sample, 0 = there never was one.
        """
        return ThermalState(
            reason=one_line(reason), source=source, sample_age=sample_age, stamp_ns=stamp_ns
        )

    @property
    def hottest(self) -> ThermalSensor | None:
        """The online sensor with the highest temperature, or None."""
        online = [sensor for sensor in self.sensors if sensor.online]
        return max(online, key=lambda sensor: sensor.temperature, default=None)

    @property
    def tightest(self) -> ThermalSensor | None:
        """The online sensor with the smallest known margin, or None where no limit is known."""
        known = [
            sensor for sensor in self.sensors if sensor.online and not math.isnan(sensor.margin)
        ]
        return min(known, key=lambda sensor: sensor.margin, default=None)

    def with_age(self, sample_age: float) -> ThermalState:
        """Return a copy whose sample is ``sample_age`` seconds old."""
        return replace(self, sample_age=sample_age)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types: NaN becomes None, level and sensor kinds their names."""
        return _plain(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ThermalState:
        """Read what :meth:`to_dict` wrote; unknown keys are ignored, absent ones take defaults.

        Raises:
            ThermalReadError: a field has the wrong type, or the state contradicts itself.
        """
        values = _fields_from(ThermalState, data)
        values["level"] = _member(ThermalLevel, values.get("level", ThermalLevel.UNKNOWN))
        try:
            values["throttle_causes"] = ThrottleCause(int(values.get("throttle_causes", 0)) & 0xFF)
            sensors = tuple(ThermalSensor.from_dict(item) for item in data.get("sensors") or ())
        except (TypeError, ValueError) as error:
            raise ThermalReadError(f"thermal state cannot be read: {error}") from error
        values["sensors"] = sensors
        state = ThermalState(**values)
        if state.is_telemetry_available == (state.level is ThermalLevel.UNKNOWN):
            raise ThermalReadError(
                f"thermal state contradicts itself: level {state.level.name} with "
                f"is_telemetry_available={state.is_telemetry_available}"
            )
        return state


def one_line(text: str) -> str:
    """Return ``text`` with every run of white space and unprintable signs as one space."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _plain(value: Any) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, IntFlag):
            item = int(item)
        elif isinstance(item, IntEnum):
            item = item.name
        elif isinstance(item, float) and not math.isfinite(item):
            item = None
        elif isinstance(item, tuple):
            item = [entry.to_dict() for entry in item]
        out[field.name] = item
    return out


def _fields_from(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the fields of ``kind`` out of ``data``, checked against the field's default type."""
    if not isinstance(data, Mapping):
        raise ThermalReadError(f"{kind.__name__} must be an object, not {type(data).__name__}")
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in data:
            continue
        value: Any = data[field.name]
        if type(field.default) is float:
            if value is None:
                value = NAN
            elif isinstance(value, bool) or not isinstance(value, (int, float)):
                raise _mistyped(kind, field.name, value)
            else:
                try:
                    value = float(value)
                except OverflowError:
                    raise _mistyped(kind, field.name, "a number beyond float64") from None
            if abs(value) > _FLOAT32_MOST:
                raise _mistyped(kind, field.name, value)
        elif type(field.default) in (bool, int, str) and type(value) is not type(field.default):
            raise _mistyped(kind, field.name, value)
        if isinstance(value, str):
            value = one_line(value)
        values[field.name] = value
    for name, end in _ENDS.items():
        if name in values and not 0 <= values[name] < end:
            raise _mistyped(kind, name, values[name])
    return values


def _mistyped(kind: type, name: str, value: object) -> ThermalReadError:
    return ThermalReadError(f"{kind.__name__}.{name} cannot be {value!r}")


def _member(kind: Any, value: object) -> Any:
    try:
        return kind[value] if isinstance(value, str) else kind(value)
    except (KeyError, ValueError) as error:
        raise ThermalReadError(f"{value!r} is no {kind.__name__}") from error
