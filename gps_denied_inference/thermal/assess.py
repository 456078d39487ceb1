"""From raw readings to a level. Pure: no files, no clocks, no vendor's library.

A source fills a :class:`Sample`; :class:`Assessor` throws out what cannot be a temperature,
compares the rest with each sensor's own limits and answers with a ``ThermalState``. It never
raises on a value, whatever the hardware reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.thermal.state import (
    NAN,
    SensorKind,
    ThermalLevel,
    ThermalSensor,
    ThermalState,
    ThrottleCause,
    one_line,
)

# Outside this span no silicon works: such a number is a sensor's way to say "no reading"
# (jtop: -256; ACPI: -274; unset registers: 0x7fffffff or 65535).
COLDEST_PLAUSIBLE = -60.0
HOTTEST_PLAUSIBLE = 150.0
# Above every clock in Hz and every power in W.
MOST_MEASURED = 1e12
# A limit below this is an unset trip point, not a limit.
LOWEST_PLAUSIBLE_LIMIT = 30.0


@dataclass(frozen=True)
class Reading:
    """One raw sensor reading; any number may be NaN or nonsense.

    Attributes:
        name: as the source names it.
        kind: what it sits on.
        temperature: degree Celsius.
        limit: degree Celsius at which the hardware throttles.
        shutdown: degree Celsius at which the hardware switches off.
    """

    name: str
    kind: SensorKind = SensorKind.OTHER
    temperature: float = NAN
    limit: float = NAN
    shutdown: float = NAN


@dataclass(frozen=True)
class Sample:
    """Everything that one read of a source gave.

    Attributes:
        source: the source's name.
        stamp_ns: system time in ns when it was read.
        readings: every sensor that is listed.
        causes: why the hardware slows down.
        bits: raw bits of the source.
        slowed: the hardware itself reports that it slows down now (heat, brown-out, over-current).
            A configured power cap that does its work is a cause, but not this.
        passive: names of the kernel's passive cooling devices that are engaged.
        clock, clock_max, power, load, power_mode: see ``ThermalState``.
        note: what else the reader of the reason should know, one line.
    """

    source: str
    stamp_ns: int = 0
    readings: tuple[Reading, ...] = ()
    causes: ThrottleCause = ThrottleCause.NONE
    bits: int = 0
    slowed: bool = False
    passive: tuple[str, ...] = ()
    clock: float = NAN
    clock_max: float = NAN
    power: float = NAN
    load: float = NAN
    power_mode: str = ""
    note: str = ""


def _default_limits() -> Mapping[SensorKind, float]:
    return {
        SensorKind.CPU: 95.0,
        SensorKind.GPU: 85.0,
        SensorKind.SOC: 95.0,
        SensorKind.MEMORY: 85.0,
        SensorKind.BOARD: 85.0,
        SensorKind.BATTERY: 55.0,
        SensorKind.OTHER: 95.0,
    }


@dataclass(frozen=True)
class LevelLimits:
    """Where one level ends and the next begins.

    Attributes:
        warm_margin: K below a sensor's limit at which WARM begins.
        critical_margin: K below a sensor's shutdown temperature at which CRITICAL begins.
        hysteresis: K by which it must be cooler than where a level began before it ends.
        assumed_limits: degree Celsius, by kind, for sensors that report no limit.
        assumed_shutdown: K above the limit, for sensors that report no shutdown temperature.
    """

    warm_margin: float = 10.0
    critical_margin: float = 2.0
    hysteresis: float = 3.0
    assumed_limits: Mapping[SensorKind, float] = field(default_factory=_default_limits)
    assumed_shutdown: float = 15.0

    def __post_init__(self) -> None:
        for name, bound in (
            ("warm_margin", 60.0),
            ("critical_margin", 30.0),
            ("hysteresis", 20.0),
            ("assumed_shutdown", 60.0),
        ):
            value = getattr(self, name)
            if not 0.0 <= value <= bound:
                raise InvalidParameterError(name, value, f"0..{bound:g} K")


def plausible_temperature(value: float) -> bool:
    """Say whether ``value`` (degree Celsius) can be a temperature of a working computer."""
    return math.isfinite(value) and COLDEST_PLAUSIBLE <= value <= HOTTEST_PLAUSIBLE


def plausible_limit(value: float) -> bool:
    """Say whether ``value`` (degree Celsius) can be a throttle or shutdown limit."""
    return math.isfinite(value) and LOWEST_PLAUSIBLE_LIMIT <= value <= HOTTEST_PLAUSIBLE


def sensor_of(reading: Reading) -> ThermalSensor:
    """Return the reading as a sensor; what cannot be a temperature or a limit becomes NaN."""
    online = plausible_temperature(reading.temperature)
    temperature = float(reading.temperature) if online else NAN
    limit = float(reading.limit) if plausible_limit(reading.limit) else NAN
    return ThermalSensor(
        name=one_line(reading.name),
        kind=reading.kind,
        online=online,
        temperature=temperature,
        limit=limit,
        margin=limit - temperature,
    )


def level_of(reading: Reading, limits: LevelLimits, heat: float = 0.0) -> tuple[ThermalLevel, str]:
    """Return the level of one reading as if it were ``heat`` kelvin hotter, and why, one line."""
    if not plausible_temperature(reading.temperature):
        return ThermalLevel.UNKNOWN, f"{reading.name} gives no valid reading"
    known = plausible_limit(reading.limit)
    limit = reading.limit if known else limits.assumed_limits.get(reading.kind, 85.0)
    shutdown = reading.shutdown
    if not plausible_limit(shutdown):
        shutdown = limit + limits.assumed_shutdown
    elif not known:
        limit = min(limit, shutdown)
    # A limit close under the shutdown temperature keeps its meaning: CRITICAL begins above it.
    critical = max(shutdown - limits.critical_margin, min(limit, shutdown))
    hot = reading.temperature + heat
    where = f"{one_line(reading.name)} {reading.temperature:.1f} degC"
    assumed = "" if known else "assumed "
    if hot >= critical:
        return ThermalLevel.CRITICAL, f"{where}, shutdown at {shutdown:.1f} degC"
    if hot >= limit:
        return ThermalLevel.THROTTLING, f"{where}, {assumed}limit {limit:.1f} degC"
    if hot >= limit - limits.warm_margin:
        return ThermalLevel.WARM, f"{where}, {assumed}limit {limit:.1f} degC"
    return ThermalLevel.NOMINAL, f"hottest {where}"


def classify(sample: Sample, limits: LevelLimits, heat: float = 0.0) -> tuple[ThermalLevel, str]:
    """Return the level of the whole sample as if it were ``heat`` kelvin hotter, and why.

    NOMINAL needs at least one valid temperature that is not a battery's; a report of the hardware
    that it slows down is enough for THROTTLING.
    """
    levels = [(*level_of(reading, limits, heat), reading) for reading in sample.readings]
    valid = [entry for entry in levels if entry[0] is not ThermalLevel.UNKNOWN]
    computer = any(entry[2].kind is not SensorKind.BATTERY for entry in valid)
    level, reason = ThermalLevel.UNKNOWN, "no sensor gives a valid reading"
    if valid:
        worst = max(valid, key=lambda entry: (entry[0], entry[2].temperature))
        level, reason = worst[0], worst[1]
        if level is ThermalLevel.NOMINAL and not computer:
            level, reason = ThermalLevel.UNKNOWN, "only the battery's temperature could be read"
    if sample.slowed and level < ThermalLevel.THROTTLING:
        return ThermalLevel.THROTTLING, f"the hardware slows itself down ({_names(sample.causes)})"
    if sample.passive and level is ThermalLevel.NOMINAL:
        return ThermalLevel.WARM, f"passive cooling engaged: {', '.join(sample.passive)}"
    return level, reason


class Assessor:
    """Turns samples into states, with hysteresis: a level ends only when it is clearly cooler.

    Not thread-safe; each source owns one.
    """

    def __init__(self, limits: LevelLimits | None = None) -> None:
        self.limits = limits or LevelLimits()
        self._level = ThermalLevel.UNKNOWN

    def assess(self, sample: Sample) -> ThermalState:
        """Return the state of ``sample``. Never raises on a value."""
        level, reason = classify(sample, self.limits)
        if ThermalLevel.UNKNOWN < level < self._level:
            held = min(self._level, classify(sample, self.limits, self.limits.hysteresis)[0])
            if held > level:
                level = held
                reason = f"{reason}; {held.name} ends {self.limits.hysteresis:g} K cooler"
        if level is not ThermalLevel.UNKNOWN:
            # An outage does not forget the level: what comes after it is compared with the last.
            self._level = level
        causes = sample.causes
        if causes and not sample.slowed:
            reason = f"{reason}; clocks held back ({_names(causes)})"
        if sample.note:
            reason = f"{reason}; {sample.note}"
        available = level is not ThermalLevel.UNKNOWN
        return ThermalState(
            stamp_ns=sample.stamp_ns,
            source=sample.source,
            level=level,
            is_telemetry_available=available,
            thermal_throttle_active=bool(causes & ThrottleCause.THERMAL),
            throttle_causes=causes,
            throttle_bits=sample.bits & 0xFFFFFFFFFFFFFFFF,
            sensors=tuple(sensor_of(reading) for reading in sample.readings),
            clock=_measured(sample.clock),
            clock_max=_measured(sample.clock_max),
            power=_measured(sample.power),
            load=sample.load if 0.0 <= sample.load <= 1.0 else NAN,
            power_mode=sample.power_mode,
            sample_age=0.0 if available else NAN,
            reason=one_line(reason),
        )


def _measured(value: float) -> float:
    """Return a clock in Hz or a power in W, NaN where it cannot be one (nor fit a float32)."""
    return float(value) if 0.0 <= value <= MOST_MEASURED else NAN


def _names(causes: ThrottleCause) -> str:
    names = [cause.name or "" for cause in ThrottleCause if cause and cause in causes]
    return ", ".join(name.lower().replace("_", " ") for name in names) or "no cause given"
