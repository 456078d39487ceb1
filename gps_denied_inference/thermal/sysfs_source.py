"""Thermal zones, trip points, cooling devices and over-current counters of the Linux kernel.

Works on every Linux computer; says most on a Jetson. Files read under the root (``/`` unless a
test or a recording puts another tree in its place)::

    sys/class/thermal/thermal_zone*/{type,temp,trip_point_*_type,trip_point_*_temp}
    sys/class/thermal/cooling_device*/{type,cur_state}
    sys/class/hwmon/hwmon*/{name,temp*_input,temp*_crit,...}    CPU and GPU chips without a zone
    sys/class/hwmon/hwmon*/oc*_event_cnt                        Jetson over-current events
    sys/devices/platform/soc/soc:firmware/get_throttled         Raspberry Pi firmware

Every file may be missing, refuse to be read or hold nonsense at any time: that sensor is then
offline, nothing raises.
"""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.thermal.assess import (
    Assessor,
    LevelLimits,
    Reading,
    Sample,
    plausible_limit,
)
from gps_denied_inference.thermal.state import NAN, ThermalState, ThrottleCause
from gps_denied_inference.thermal.sysfs_board import Board
from gps_denied_inference.thermal.sysfs_files import kind_of, listed, read_number, read_text

# Cooling devices that stand for a slow-down in hardware (Jetson: "cpu-throttle-alert").
_ALERT = re.compile(r"throttle-alert", re.IGNORECASE)
# Cooling devices that lower clocks; fans, displays, radios and TCC offsets are not among them.
_PASSIVE = re.compile(
    r"cpufreq|devfreq|powerclamp|^processor$|hot-surface-alert|balanced|heavy"
    r"|^(?!.*fan).*(gpu|cpu)(?!.*throttle-alert)",
    re.IGNORECASE,
)
_CHIPS = ("coretemp", "k10temp", "zenpower", "amdgpu", "nouveau")

# Raspberry Pi firmware: what holds now (the same bits from 16 on say what has been since boot).
PI_UNDER_VOLTAGE = 0x1
PI_CAPPED = 0x2
PI_THROTTLED = 0x4
PI_SOFT_LIMIT = 0x8
# In ``throttle_bits``, bit 31 + N says that over-current counter N moved since the last sample.
OVER_CURRENT_SHIFT = 31


class SysfsSource:
    """Reads the kernel's own files.

    Args:
        root: the tree that holds ``sys``, ``proc``, ``etc`` and ``var``.
        limits: where the levels begin.

    Raises:
        RuntimeUnavailableError: the tree lists no temperature sensor at all.
    """

    name = "sysfs"

    def __init__(self, root: Path = Path("/"), limits: LevelLimits | None = None) -> None:
        self._root = Path(root)
        self._assessor = Assessor(limits)
        self._board = Board(self._root)
        self._counters: dict[str, float] = {}
        if not self._zones() and not self.chip_readings():
            raise RuntimeUnavailableError(
                f"no temperature sensor under {self._root / 'sys/class'}",
                "in a container or a virtual machine mount the host's /sys, or choose source none",
            )
        self.over_current()

    def read(self) -> ThermalState:
        """Take one sample; UNKNOWN with its reason where no sensor gives a valid reading."""
        return self._assessor.assess(self.sample())

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def sample(self) -> Sample:
        """Read everything once, unjudged."""
        stamp = time.time_ns()
        readings = (*self.zone_readings(), *self.chip_readings())
        causes, bits, slowed = self.firmware()
        moved = self.over_current()
        if moved:
            causes |= ThrottleCause.OVER_CURRENT
            slowed = True
            for number in moved:
                bits |= 1 << (OVER_CURRENT_SHIFT + number)
        alerts, passive = self.cooling()
        if alerts:
            causes |= ThrottleCause.THERMAL
            slowed = True
        elif passive and any(reading.temperature >= reading.limit for reading in readings):
            # The kernel itself throttles: a sensor is over its passive trip and clocks are lowered.
            causes |= ThrottleCause.THERMAL
            slowed = True
        clock, clock_max = self._board.clocks()
        return Sample(
            source=self.name,
            stamp_ns=stamp,
            readings=readings,
            causes=causes,
            bits=bits,
            slowed=slowed,
            passive=(*alerts, *passive),
            clock=clock,
            clock_max=clock_max,
            power=self._board.power(),
            load=self._board.load(),
            power_mode=self._board.power_mode(),
        )

    def zone_readings(self) -> tuple[Reading, ...]:
        """Return one reading per thermal zone."""
        readings = []
        for zone in self._zones():
            name = read_text(zone / "type") or zone.name
            temperature = read_number(zone / "temp", 1e-3)
            if name.lower().startswith("pmic") and temperature == 100.0:
                # Jetson boards before Orin report this constant for the power chip.
                temperature = NAN
            limit, shutdown = trip_limits(zone)
            readings.append(Reading(name, kind_of(name), temperature, limit, shutdown))
        return tuple(readings)

    def chip_readings(self) -> tuple[Reading, ...]:
        """Return readings of CPU and GPU chips that hwmon lists and no thermal zone repeats."""
        readings = []
        for chip in listed(self._root / "sys/class/hwmon", "hwmon*"):
            name = read_text(chip / "name")
            if name not in _CHIPS:
                continue
            for file in listed(chip, "temp*_input"):
                stem = file.name[: -len("_input")]
                label = read_text(chip / f"{stem}_label") or stem
                readings.append(
                    Reading(
                        f"{name} {label}",
                        kind_of("gpu" if name in ("amdgpu", "nouveau") else "cpu"),
                        read_number(file, 1e-3),
                        # These chips slow down at what hwmon calls critical.
                        read_number(chip / f"{stem}_crit", 1e-3),
                        read_number(chip / f"{stem}_emergency", 1e-3),
                    )
                )
        return tuple(readings)

    def cooling(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of engaged cooling devices: (hardware alerts, passive ones)."""
        alerts, passive = [], []
        for device in listed(self._root / "sys/class/thermal", "cooling_device*"):
            name = read_text(device / "type")
            if not read_number(device / "cur_state") > 0:
                continue
            if _ALERT.search(name):
                alerts.append(name)
            elif _PASSIVE.search(name):
                passive.append(name)
        return tuple(alerts), tuple(passive)

    def over_current(self) -> tuple[int, ...]:
        """Return the numbers of the over-current counters that grew since the last call."""
        moved = set()
        for file in listed(self._root / "sys/class/hwmon", "hwmon*/oc*_event_cnt"):
            count = read_number(file)
            number = re.match(r"oc(\d{1,2})_", file.name)
            if math.isnan(count) or number is None:
                continue
            before = self._counters.get(str(file))
            self._counters[str(file)] = count
            if before is not None and count > before:
                moved.add(min(int(number.group(1)), 32))
        return tuple(sorted(moved))

    def firmware(self) -> tuple[ThrottleCause, int, bool]:
        """Return (causes, raw bits, slowed now) of a Raspberry Pi's firmware, none elsewhere."""
        text = read_text(self._root / "sys/devices/platform/soc/soc:firmware/get_throttled")
        try:
            bits = int(text, 16) & 0xFFFFFFFF
        except ValueError:
            return ThrottleCause.NONE, 0, False
        causes = ThrottleCause.NONE
        if bits & PI_UNDER_VOLTAGE:
            causes |= ThrottleCause.POWER
        if bits & PI_SOFT_LIMIT or (
            bits & (PI_CAPPED | PI_THROTTLED) and not bits & PI_UNDER_VOLTAGE
        ):
            causes |= ThrottleCause.THERMAL
        return causes, bits, bool(causes)

    def _zones(self) -> list[Path]:
        return listed(self._root / "sys/class/thermal", "thermal_zone*")


def trip_limits(zone: Path) -> tuple[float, float]:
    """Return (throttle limit, shutdown) in degree Celsius of a thermal zone, NaN = not known.

    The limit is the lowest passive trip, else the lowest hot one; shutdown the lowest critical one.
    """
    lowest: dict[str, float] = {}
    for file in listed(zone, "trip_point_*_type"):
        value = read_number(file.with_name(file.name.replace("_type", "_temp")), 1e-3)
        if plausible_limit(value):
            kind = read_text(file)
            lowest[kind] = min(value, lowest.get(kind, value))
    limit = lowest.get("passive", lowest.get("hot", NAN))
    return limit, lowest.get("critical", NAN)
