"""Reading small kernel files that may vanish, refuse or hold nonsense, and naming sensors."""

from __future__ import annotations

import re
from pathlib import Path

from gps_denied_inference.thermal.state import NAN, SensorKind

# Attributes are one page at most; a regular file of another size in their place is not read whole.
_MOST_BYTES = 4096

_KINDS = (
    (SensorKind.BATTERY, r"batt?ery|^bat\d*|bq\d{4}"),
    (SensorKind.GPU, r"gpu|mali|v3d"),
    (SensorKind.MEMORY, r"mem|dram|emc|ddr|hbm"),
    (SensorKind.CPU, r"cpu|core|k10temp|zenpower|x86_pkg|tctl|tdie|bigcore|littlecore"),
    (SensorKind.SOC, r"soc|^tj|cv\d|tdiode|^ao-|^aux-|package|bcm2"),
    (SensorKind.BOARD, r"board|acpitz|pch|ambient|pmic|skin"),
)


def read_text(path: Path) -> str:
    """Return the file's text without surrounding white space; empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").strip("\0 \t\r\n")
    except (OSError, ValueError):
        return ""


def read_number(path: Path, scale: float = 1.0) -> float:
    """Return the file's decimal number times ``scale``, or NaN."""
    try:
        return float(read_text(path)) * scale
    except ValueError:
        return NAN


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what matches ``pattern`` in ``folder``, in the kernel's numbering; [] where absent."""
    try:
        return sorted(folder.glob(pattern), key=_natural)
    except OSError:
        return []


def kind_of(name: str) -> SensorKind:
    """Guess from a sensor's name what it sits on."""
    lower = name.lower()
    for kind, pattern in _KINDS:
        if re.search(pattern, lower):
            return kind
    return SensorKind.OTHER


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts)
