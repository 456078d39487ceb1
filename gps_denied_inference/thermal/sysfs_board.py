"""Clock, power, load and power mode of the board, from kernel files under an injectable root."""

from __future__ import annotations

import math
import re
from pathlib import Path

from gps_denied_inference.thermal.state import NAN, one_line
from gps_denied_inference.thermal.sysfs_files import listed, read_number, read_text

_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b|mali|v3d|panfrost|panthor", re.IGNORECASE)
# The rail that feeds the whole module, by the names that the Jetson boards give it.
_INPUT_RAIL = re.compile(r"^(VDD_IN|POM_5V_IN|VIN_SYS_5V0|VDD_5V_IN)$", re.IGNORECASE)


class Board:
    """Reads what is not a temperature. Keeps the CPU's counters, since load is a difference."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cpu_before: tuple[float, float] | None = None

    def clocks(self) -> tuple[float, float]:
        """Return (now, maximum) in Hz of the accelerator, else of the CPU, or NaN."""
        for device in self._accelerators():
            now, most = read_number(device / "cur_freq"), read_number(device / "max_freq")
            if not (math.isnan(now) and math.isnan(most)):
                return now, most
        policies = listed(self._root / "sys/devices/system/cpu/cpufreq", "policy*")
        present = [read_number(policy / "scaling_cur_freq", 1e3) for policy in policies]
        top = [read_number(policy / "cpuinfo_max_freq", 1e3) for policy in policies]
        return _most(present), _most(top)

    def load(self) -> float:
        """Return 0..1 of the accelerator, of the CPU since the last call where there is none."""
        cpu = self._cpu_load()
        for device in self._accelerators():
            value = read_number(device / "device/load", 1e-3)
            if 0.0 <= value <= 1.0:
                return value
        return cpu

    def power(self) -> float:
        """Return W of the module's input rail, else of all rails together, or NaN."""
        rails: dict[str, float] = {}
        for chip in listed(self._root / "sys/class/hwmon", "hwmon*"):
            if read_text(chip / "name") != "ina3221":
                continue
            for label in listed(chip, "in*_label"):
                number = label.name[2 : -len("_label")]
                volts = read_number(chip / f"in{number}_input", 1e-3)
                amperes = read_number(chip / f"curr{number}_input", 1e-3)
                if math.isfinite(volts * amperes):
                    rails[read_text(label)] = volts * amperes
        for name, watts in rails.items():
            if _INPUT_RAIL.match(name):
                return watts
        return sum(rails.values()) if rails else NAN

    def power_mode(self) -> str:
        """Return the name of the Jetson power mode, its number where it has no name, or ''."""
        status = re.search(r"pmode:(\d+)", read_text(self._root / "var/lib/nvpmodel/status"))
        if not status:
            return ""
        number = int(status.group(1))
        try:
            models = (self._root / "etc/nvpmodel.conf").read_text(errors="replace")
        except OSError:
            models = ""
        named = re.search(rf"<\s*POWER_MODEL\s+ID=0*{number}\s+NAME=(\S+)\s*>", models)
        return one_line(named.group(1)) if named else f"mode {number}"

    def _accelerators(self) -> list[Path]:
        devices = listed(self._root / "sys/class/devfreq", "*")
        return [device for device in devices if _GPU.search(device.name)]

    def _cpu_load(self) -> float:
        first = read_text(self._root / "proc/stat").split("\n", 1)[0].split()
        if len(first) < 6 or first[0] != "cpu":
            return NAN
        try:
            ticks = [float(item) for item in first[1:9]]
        except ValueError:
            return NAN
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._cpu_before = self._cpu_before, (total, idle)
        if before is None or total <= before[0]:
            return NAN
        busy = 1.0 - (idle - before[1]) / (total - before[0])
        return busy if 0.0 <= busy <= 1.0 else NAN


def _most(values: list[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=NAN)
