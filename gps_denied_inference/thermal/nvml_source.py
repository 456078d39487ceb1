"""NVIDIA GPUs of a PC through NVML (``pip install nvidia-ml-py``).

The clock event reasons say why the GPU does not run at its full clock. What each bit means here:

====== ====================== ============ =====================================
bit    NVML's name            cause        the hardware slows itself down
====== ====================== ============ =====================================
0x001  GpuIdle                none         no
0x002  ApplicationsClocks     none         no
0x004  SwPowerCap             power        no: a configured cap that does its work
0x008  HwSlowdown             other        yes, where no finer bit is set with it
0x010  SyncBoost              none         no
0x020  SwThermalSlowdown      thermal      yes
0x040  HwThermalSlowdown      thermal      yes
0x080  HwPowerBrakeSlowdown   power        yes
0x100  DisplayClockSetting    none         no
0x200  BoardLimit             power        no
others                        other        no; kept in ``throttle_bits``
====== ====================== ============ =====================================
"""

from __future__ import annotations

import contextlib
import os
import time
from types import ModuleType
from typing import Any

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.thermal.assess import (
    Assessor,
    LevelLimits,
    Reading,
    Sample,
    plausible_limit,
)
from gps_denied_inference.thermal.state import (
    NAN,
    SensorKind,
    ThermalState,
    ThrottleCause,
    one_line,
)

GPU_IDLE = 0x1
APPLICATIONS_CLOCKS = 0x2
SW_POWER_CAP = 0x4
HW_SLOWDOWN = 0x8
SYNC_BOOST = 0x10
SW_THERMAL = 0x20
HW_THERMAL = 0x40
HW_POWER_BRAKE = 0x80
DISPLAY_CLOCKS = 0x100
BOARD_LIMIT = 0x200
_HARMLESS = GPU_IDLE | APPLICATIONS_CLOCKS | SYNC_BOOST | DISPLAY_CLOCKS
_KNOWN = (
    _HARMLESS | SW_POWER_CAP | HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER_BRAKE | BOARD_LIMIT
)


def causes_of(bits: int) -> tuple[ThrottleCause, bool]:
    """Return (causes, whether the hardware slows itself down) of NVML's clock event reasons."""
    causes = ThrottleCause.NONE
    if bits & (SW_THERMAL | HW_THERMAL):
        causes |= ThrottleCause.THERMAL
    if bits & (SW_POWER_CAP | HW_POWER_BRAKE | BOARD_LIMIT):
        causes |= ThrottleCause.POWER
    if bits & ~_KNOWN or (bits & HW_SLOWDOWN and not bits & (HW_THERMAL | HW_POWER_BRAKE)):
        causes |= ThrottleCause.OTHER
    return causes, bool(bits & (HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER_BRAKE))


class NvmlSource:
    """Reads one GPU. NVML is initialised anew in a forked child.

    Args:
        device: the GPU: its PCI bus id or UUID, both of which CUDA knows too; or its index in
            NVML's order (that of ``nvidia-smi``), which is neither CUDA's own nor that of
            ``CUDA_VISIBLE_DEVICES``.
        limits: where the levels begin.
        library: the module with NVML's functions; default is ``pynvml``.

    Raises:
        RuntimeUnavailableError: no ``pynvml``, no driver, or no such GPU.
    """

    name = "nvml"

    def __init__(
        self,
        device: int | str = 0,
        limits: LevelLimits | None = None,
        library: ModuleType | Any | None = None,
    ) -> None:
        self._library = library if library is not None else _import_library()
        self._device = device
        self._assessor = Assessor(limits)
        self._handle: Any = None
        self._label = f"GPU {device}"
        self._process: int | None = None
        self._failure = ""
        self._attach()

    def read(self) -> ThermalState:
        """Take one sample; UNKNOWN with NVML's own words where it gives no temperature."""
        return self._assessor.assess(self.sample())

    def close(self) -> None:
        """Shut NVML down, where this process has initialised it."""
        if self._process == os.getpid():
            self._ask("nvmlShutdown")
        self._process = None

    def sample(self) -> Sample:
        """Read everything once, unjudged.

        Raises:
            RuntimeUnavailableError: the GPU went away and does not come back.
        """
        if self._process != os.getpid():
            self._attach()
        self._failure = ""
        stamp = time.time_ns()
        lib = self._library
        temperature = self._number(
            "nvmlDeviceGetTemperature", getattr(lib, "NVML_TEMPERATURE_GPU", 0)
        )
        if self._failure:
            # A GPU that fell off the bus or a driver that was reloaded needs a fresh handle.
            self._process = None
        bits = self._reasons()
        causes, slowed = causes_of(bits)
        readings = [
            Reading(self._label, SensorKind.GPU, temperature, *self._thresholds()),
            *self._memory(),
        ]
        rates = self._ask("nvmlDeviceGetUtilizationRates", self._handle)
        sm_clock = getattr(lib, "NVML_CLOCK_SM", 1)
        return Sample(
            source=self.name,
            stamp_ns=stamp,
            readings=tuple(readings),
            causes=causes,
            bits=bits,
            slowed=slowed,
            clock=self._number("nvmlDeviceGetClockInfo", sm_clock) * 1e6,
            clock_max=self._number("nvmlDeviceGetMaxClockInfo", sm_clock) * 1e6,
            power=self._number("nvmlDeviceGetPowerUsage") * 1e-3,
            load=_as_float(getattr(rates, "gpu", None)) * 1e-2,
            note=self._failure,
        )

    def _attach(self) -> None:
        lib = self._library
        try:
            lib.nvmlInit()
            self._process = os.getpid()
            self._handle = self._find()
        except RuntimeUnavailableError:
            raise
        except Exception as error:
            raise RuntimeUnavailableError(
                f"NVML cannot be used: {one_line(str(error)) or type(error).__name__}",
                "check that nvidia-smi works",
            ) from error
        label = self._ask("nvmlDeviceGetName", self._handle)
        if isinstance(label, bytes):
            # nvidia-ml-py before 11.5 returned bytes.
            label = label.decode("utf-8", "replace")
        if label:
            self._label = f"GPU {self._device} {label}"

    def _find(self) -> Any:
        lib, device = self._library, self._device
        if isinstance(device, str):
            if device.startswith(("GPU-", "MIG-")):
                return lib.nvmlDeviceGetHandleByUUID(device)
            return lib.nvmlDeviceGetHandleByPciBusId(device)
        count = int(lib.nvmlDeviceGetCount())
        if not 0 <= device < count:
            raise RuntimeUnavailableError(
                f"NVML lists {count} GPU(s), there is no GPU {device}",
                "nvidia-smi -L lists them",
            )
        return lib.nvmlDeviceGetHandleByIndex(device)

    def _reasons(self) -> int:
        for function in (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ):
            bits = self._ask(function, self._handle)
            if isinstance(bits, int):
                return bits & 0xFFFFFFFFFFFFFFFF
        return 0

    def _thresholds(self) -> tuple[float, float]:
        lib = self._library
        asked = {
            name: self._number(
                "nvmlDeviceGetTemperatureThreshold",
                getattr(lib, f"NVML_TEMPERATURE_THRESHOLD_{name}", number),
            )
            for name, number in (("SHUTDOWN", 0), ("SLOWDOWN", 1), ("GPU_MAX", 3))
        }
        limits = [asked[name] for name in ("SLOWDOWN", "GPU_MAX") if plausible_limit(asked[name])]
        return min(limits, default=NAN), asked["SHUTDOWN"]

    def _memory(self) -> list[Reading]:
        lib = self._library
        field = getattr(lib, "NVML_FI_DEV_MEMORY_TEMP", 82)
        values = self._ask("nvmlDeviceGetFieldValues", self._handle, [field])
        try:
            value = values[0]
            if int(value.nvmlReturn) != 0 or int(value.value.uiVal) == 0:
                return []
            temperature = _as_float(value.value.uiVal)
        except (TypeError, IndexError, AttributeError, ValueError, OverflowError):
            return []
        limit = self._number(
            "nvmlDeviceGetTemperatureThreshold",
            getattr(lib, "NVML_TEMPERATURE_THRESHOLD_MEM_MAX", 2),
        )
        return [Reading(f"{self._label} memory", SensorKind.MEMORY, temperature, limit)]

    def _number(self, function: str, *arguments: Any) -> float:
        return _as_float(self._ask(function, self._handle, *arguments))

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Call one of NVML's functions; None where it is missing, unsupported or fails."""
        call = getattr(self._library, function, None)
        if call is None:
            return None
        try:
            return call(*arguments)
        except Exception as error:  # noqa: BLE001 - one missing number must not cost the others
            missing = ("NVMLError_NotSupported", "NVMLError_FunctionNotFound")
            if type(error).__name__ not in (*missing, "NVMLError_InvalidArgument"):
                self._failure = f"{function}: {one_line(str(error)) or type(error).__name__}"
            return None


def _as_float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    return NAN


def _import_library() -> ModuleType:
    try:
        import pynvml
    except ImportError as error:
        raise RuntimeUnavailableError(
            "the Python package pynvml is not installed", "pip install nvidia-ml-py"
        ) from error
    module: ModuleType = pynvml
    return module
