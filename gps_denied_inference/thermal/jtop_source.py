"""Jetson boards through jtop (``sudo pip3 install -U jetson-stats``; AGPL-3.0, so optional).

jtop says temperatures, clocks, power and the power mode; it says neither trip points nor why the
hardware slows down. Those come from the kernel's files beside it, where they can be read.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gps_denied_inference.errors import RuntimeUnavailableError, ThermalReadError
from gps_denied_inference.thermal.assess import (
    Assessor,
    LevelLimits,
    Reading,
    Sample,
    plausible_limit,
)
from gps_denied_inference.thermal.deadline import within
from gps_denied_inference.thermal.state import NAN, ThermalState, one_line
from gps_denied_inference.thermal.sysfs_files import kind_of
from gps_denied_inference.thermal.sysfs_source import SysfsSource

_HINT = "sudo systemctl restart jtop.service, with one version of jetson-stats on host and client"


class JtopSource:
    """Reads the jtop service. After a lost connection the next read tries to connect anew.

    Args:
        sysfs_root: where the kernel's trip points are read.
        limits: where the levels begin.
        connect: makes a jtop client; default is ``jtop.jtop``.
        timeout: s to wait for the service.

    Raises:
        RuntimeUnavailableError: no jetson-stats, no service, no right to use it, another version.
    """

    name = "jtop"

    def __init__(
        self,
        sysfs_root: Path = Path("/"),
        limits: LevelLimits | None = None,
        connect: Callable[[], Any] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self._connect = connect or _import_client()
        self._timeout = timeout
        self._assessor = Assessor(limits)
        self._client: Any = None
        self._kernel: SysfsSource | None = None
        self._attach()
        try:
            self._kernel = SysfsSource(sysfs_root)
        except RuntimeUnavailableError:
            # In a container jtop's socket may be all there is: limits are then the assumed ones.
            self._kernel = None

    def read(self) -> ThermalState:
        """Take one sample.

        Raises:
            ThermalReadError: the service went away.
            RuntimeUnavailableError: it went away and does not come back.
        """
        return self._assessor.assess(self.sample())

    def close(self) -> None:
        """Leave the service."""
        client, self._client = self._client, None
        if client is not None:
            # A service that is gone cannot be left any better.
            with contextlib.suppress(Exception):
                client.close()

    def sample(self) -> Sample:
        """Read everything once, unjudged."""
        if self._client is None:
            self._attach()
        stamp = time.time_ns()
        try:
            # Not the blocking form: jtop's own thread receives, this one only looks.
            alive = self._client.ok(spin=True)
        except Exception as error:
            self.close()
            raise ThermalReadError(f"jtop failed: {_words(error)}") from error
        if not alive:
            self.close()
            raise ThermalReadError("the jtop service has stopped")
        kernel = self._kernel.sample() if self._kernel else Sample(self.name)
        clock, clock_max, load = gpu_of(self._get("gpu"))
        return replace(
            kernel,
            source=self.name,
            stamp_ns=stamp,
            readings=readings_of(self._get("temperature"), kernel.readings),
            clock=_or(clock, kernel.clock),
            clock_max=_or(clock_max, kernel.clock_max),
            load=_or(load, kernel.load),
            power=_or(power_of(self._get("power")), kernel.power),
            power_mode=_mode(self._get("nvpmodel")) or kernel.power_mode,
        )

    def _get(self, attribute: str) -> Any:
        """Return one of jtop's properties; None where this version or board has it not."""
        try:
            return getattr(self._client, attribute, None)
        except Exception:  # noqa: BLE001 - one missing property must not cost the others
            return None

    def _attach(self) -> None:
        def start() -> Any:
            client = self._connect()
            client.start()
            return client

        try:
            self._client = within(self._timeout, start, "the jtop service")
        except Exception as error:
            raise RuntimeUnavailableError(f"jtop cannot be used: {_words(error)}", _HINT) from error


def readings_of(temperature: object, kernel: tuple[Reading, ...] = ()) -> tuple[Reading, ...]:
    """Return one reading per sensor of jtop's ``temperature``; offline ones with NaN.

    Args:
        temperature: jtop 4 and later: name -> {"temp", "online", "max", "crit"}; before: name ->
            number.
        kernel: the kernel's readings, for the limits that jtop does not know.
    """
    if not isinstance(temperature, Mapping):
        return ()
    known = {_short(reading.name): reading for reading in kernel}
    readings = []
    for key, value in temperature.items():
        name = str(key)
        fields: Mapping[Any, Any] = value if isinstance(value, Mapping) else {"temp": value}
        online = fields.get("online", True) is not False
        other = known.get(_short(name))
        limit, shutdown = _limit(fields.get("max")), _limit(fields.get("crit"))
        readings.append(
            Reading(
                name,
                kind_of(name),
                _number(fields.get("temp")) if online else NAN,
                _or(limit, other.limit if other else NAN),
                _or(shutdown, other.shutdown if other else NAN),
            )
        )
    return tuple(readings)


def gpu_of(gpu: object) -> tuple[float, float, float]:
    """Return (clock now in Hz, maximum in Hz, load 0..1) of the first GPU that jtop lists."""
    if isinstance(gpu, Mapping):
        for device in gpu.values():
            if isinstance(device, Mapping):
                rate, status = device.get("freq"), device.get("status")
                rate = rate if isinstance(rate, Mapping) else {}
                status = status if isinstance(status, Mapping) else {}
                return (
                    _number(rate.get("cur")) * 1e3,
                    _number(rate.get("max")) * 1e3,
                    _number(status.get("load")) * 1e-2,
                )
    return NAN, NAN, NAN


def power_of(power: object) -> float:
    """Return W of the whole board as jtop sums it up, or NaN."""
    total = power.get("tot") if isinstance(power, Mapping) else None
    return _number(total.get("power")) * 1e-3 if isinstance(total, Mapping) else NAN


def _mode(value: object) -> str:
    return "" if value is None else one_line(str(value))


def _short(name: str) -> str:
    # The kernel's "cpu-thermal" and "CPU-therm" are jtop's "cpu" and "CPU".
    return re.split(r"[-_]", name.lower(), maxsplit=1)[0]


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return NAN


def _limit(value: object) -> float:
    # A limit that could not be read is -256, like a temperature.
    number = _number(value)
    return number if plausible_limit(number) else NAN


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def _words(error: BaseException) -> str:
    return one_line(str(error)) or type(error).__name__


def _import_client() -> Callable[[], Any]:
    try:
        from jtop import jtop
    except Exception as error:
        raise RuntimeUnavailableError(
            f"jetson-stats cannot be imported: {_words(error)}",
            "on a Jetson: sudo pip3 install -U jetson-stats",
        ) from error
    client: Callable[[], Any] = jtop
    return client
