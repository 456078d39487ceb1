"""NVML through a stub at the library's own function boundary: the functions of ``pynvml``."""

from __future__ import annotations

import math
import os
import re
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.thermal import nvml_source
from gps_denied_inference.thermal.nvml_source import NvmlSource, causes_of
from gps_denied_inference.thermal.state import SensorKind, ThermalLevel, ThrottleCause


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):  # noqa: N801, N818 - as the library names it
    pass


class NVMLError_GpuIsLost(NVMLError):  # noqa: N801, N818
    pass


class StubNvml:
    """Stub of the module ``pynvml``: the functions that are called, no more."""

    NVML_TEMPERATURE_GPU = 0
    NVML_TEMPERATURE_THRESHOLD_SHUTDOWN = 0
    NVML_TEMPERATURE_THRESHOLD_SLOWDOWN = 1
    NVML_TEMPERATURE_THRESHOLD_MEM_MAX = 2
    NVML_TEMPERATURE_THRESHOLD_GPU_MAX = 3
    NVML_CLOCK_SM = 1
    NVML_FI_DEV_MEMORY_TEMP = 82

    def __init__(self) -> None:
        self.inits = 0
        self.shutdowns = 0
        self.temperature: Any = 45
        self.thresholds: dict[int, Any] = {0: 92, 1: 89, 2: 95, 3: 87}
        self.reasons: Any = 0x1
        self.memory: Any = 50
        self.count = 1
        self.handles: dict[str, str] = {}
        self.heat: dict[str, float] = {}
        self.power: Any = 71_500

    def nvmlInit(self) -> None:  # noqa: N802
        self.inits += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shutdowns += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> str:  # noqa: N802
        return self.handles[bus_id]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return self.handles[uuid]

    def nvmlDeviceGetName(self, handle: str) -> Any:  # noqa: N802
        return b"NVIDIA Stub"

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> Any:  # noqa: N802
        return give(self.heat.get(handle, self.temperature))

    def nvmlDeviceGetTemperatureThreshold(self, handle: str, which: int) -> Any:  # noqa: N802
        return give(self.thresholds.get(which, NVMLError_NotSupported()))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> Any:  # noqa: N802
        return give(self.reasons)

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        return 1410

    def nvmlDeviceGetMaxClockInfo(self, handle: str, clock: int) -> int:  # noqa: N802
        return 1980

    def nvmlDeviceGetPowerUsage(self, handle: str) -> Any:  # noqa: N802
        return give(self.power)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        return types.SimpleNamespace(gpu=63, memory=20)

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> Any:  # noqa: N802
        value = give(self.memory)
        return [types.SimpleNamespace(nvmlReturn=0, value=types.SimpleNamespace(uiVal=value))]


def give(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture
def nvml() -> StubNvml:
    return StubNvml()


def test_a_cool_gpu_in_full(nvml: StubNvml) -> None:
    state = NvmlSource(library=nvml).read()
    assert state.level is ThermalLevel.NOMINAL
    gpu, memory = state.sensors
    assert (gpu.name, gpu.kind) == ("GPU 0 NVIDIA Stub", SensorKind.GPU)
    assert (gpu.temperature, gpu.limit, gpu.margin) == (45, 87, 42)
    assert (memory.kind, memory.temperature, memory.limit) == (SensorKind.MEMORY, 50, 95)
    assert (state.clock, state.clock_max) == (1.41e9, 1.98e9)
    assert state.power == pytest.approx(71.5)
    assert state.load == pytest.approx(0.63)
    assert state.throttle_bits == 0x1
    assert state.throttle_causes is ThrottleCause.NONE


@pytest.mark.parametrize(
    ("bits", "causes", "slowed"),
    [
        (0x0, ThrottleCause.NONE, False),
        (0x1 | 0x2 | 0x10 | 0x100, ThrottleCause.NONE, False),
        (0x4, ThrottleCause.POWER, False),
        (0x8, ThrottleCause.OTHER, True),
        (0x20, ThrottleCause.THERMAL, True),
        (0x8 | 0x40, ThrottleCause.THERMAL, True),
        (0x8 | 0x80, ThrottleCause.POWER, True),
        (0x24, ThrottleCause.THERMAL | ThrottleCause.POWER, True),
        (1 << 40, ThrottleCause.OTHER, False),
    ],
)
def test_clock_event_reasons(bits: int, causes: ThrottleCause, slowed: bool) -> None:
    assert causes_of(bits) == (causes, slowed)


def test_our_bits_are_the_library_s() -> None:
    pynvml = pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    for ours, theirs in (
        ("GPU_IDLE", "GpuIdle"),
        ("APPLICATIONS_CLOCKS", "ApplicationsClocksSetting"),
        ("SW_POWER_CAP", "SwPowerCap"),
        ("HW_SLOWDOWN", "HwSlowdown"),
        ("SYNC_BOOST", "SyncBoost"),
        ("SW_THERMAL", "SwThermalSlowdown"),
        ("HW_THERMAL", "HwThermalSlowdown"),
        ("HW_POWER_BRAKE", "HwPowerBrakeSlowdown"),
        ("DISPLAY_CLOCKS", "DisplayClockSetting"),
    ):
        assert getattr(nvml_source, ours) == getattr(pynvml, f"nvmlClocksThrottleReason{theirs}")


def test_every_function_that_is_called_exists_in_the_library() -> None:
    pynvml = pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    source = Path(nvml_source.__file__).read_text()
    called = set(re.findall(r'"(nvml[A-Z]\w+)"|lib\.(nvml[A-Z]\w+)', source))
    names = {first or second for first, second in called}
    assert len(names) >= 10
    assert [name for name in sorted(names) if not hasattr(pynvml, name)] == []
    for constant in (
        "NVML_TEMPERATURE_GPU",
        "NVML_TEMPERATURE_THRESHOLD_SHUTDOWN",
        "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",
        "NVML_TEMPERATURE_THRESHOLD_MEM_MAX",
        "NVML_TEMPERATURE_THRESHOLD_GPU_MAX",
        "NVML_CLOCK_SM",
        "NVML_FI_DEV_MEMORY_TEMP",
    ):
        assert getattr(StubNvml, constant) == getattr(pynvml, constant)


@pytest.mark.parametrize(
    ("temperature", "level"),
    [(76, "NOMINAL"), (77, "WARM"), (87, "THROTTLING"), (90, "CRITICAL"), (92, "CRITICAL")],
)
def test_levels_follow_the_gpu_s_own_thresholds(
    nvml: StubNvml, temperature: int, level: str
) -> None:
    nvml.temperature = temperature
    assert NvmlSource(library=nvml).read().level.name == level


def test_thermal_slowdown_and_unknown_bits_are_kept(nvml: StubNvml) -> None:
    nvml.reasons = 0x20 | 1 << 50
    state = NvmlSource(library=nvml).read()
    assert state.level is ThermalLevel.THROTTLING
    assert state.thermal_throttle_active
    assert state.throttle_causes == ThrottleCause.THERMAL | ThrottleCause.OTHER
    assert state.throttle_bits == 0x20 | 1 << 50


def test_a_power_cap_is_said_but_is_no_level(nvml: StubNvml) -> None:
    nvml.reasons = 0x4
    state = NvmlSource(library=nvml).read()
    assert state.level is ThermalLevel.NOMINAL
    assert state.throttle_causes is ThrottleCause.POWER
    assert "clocks held back (power)" in state.reason


def test_a_board_without_temperature_is_unknown(nvml: StubNvml) -> None:
    nvml.temperature = nvml.memory = NVMLError_NotSupported("Not Supported")
    state = NvmlSource(library=nvml).read()
    assert state.level is ThermalLevel.UNKNOWN
    # Idle or not throttled is no proof of being cool.
    assert not state.is_telemetry_available


def test_an_old_library_with_the_old_name_of_the_reasons(nvml: StubNvml) -> None:
    nvml.nvmlDeviceGetCurrentClocksEventReasons = None  # type: ignore[assignment,method-assign]
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 0x40  # type: ignore[attr-defined]
    assert NvmlSource(library=nvml).read().thermal_throttle_active


def test_a_lost_gpu_is_unknown_with_nvml_s_words_and_comes_back(nvml: StubNvml) -> None:
    source = NvmlSource(library=nvml)
    nvml.temperature = nvml.memory = NVMLError_GpuIsLost("GPU is lost")
    state = source.read()
    assert state.level is ThermalLevel.UNKNOWN
    assert "GPU is lost" in state.reason
    nvml.temperature, nvml.memory = 45, 50
    assert source.read().level is ThermalLevel.NOMINAL
    assert nvml.inits == 2


def test_a_forked_child_initialises_anew(nvml: StubNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    source = NvmlSource(library=nvml)
    source.read()
    assert nvml.inits == 1
    pid = os.getpid()
    monkeypatch.setattr(nvml_source.os, "getpid", lambda: pid + 1)
    source.read()
    assert nvml.inits == 2


def test_close_shuts_down_once(nvml: StubNvml) -> None:
    source = NvmlSource(library=nvml)
    source.close()
    source.close()
    assert nvml.shutdowns == 1


def test_no_driver_and_no_such_gpu_are_unavailable(nvml: StubNvml) -> None:
    with pytest.raises(RuntimeUnavailableError, match="lists 1 GPU"):
        NvmlSource(device=3, library=nvml)

    def fail() -> None:
        raise NVMLError("Driver Not Loaded")

    nvml.nvmlInit = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeUnavailableError, match=r"Driver Not Loaded.*nvidia-smi"):
        NvmlSource(library=nvml)


VALUES = st.one_of(
    st.integers(-300, 2**64),
    st.floats(),
    st.none(),
    st.text(max_size=3),
    st.sampled_from(
        [NVMLError_NotSupported(), NVMLError_GpuIsLost(), OSError("x"), -256, 10**6, 10**400]
    ),
)


@given(st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES, VALUES), max_size=10))
def test_no_answer_of_the_library_raises(rounds: list[Any]) -> None:
    nvml = StubNvml()
    source = NvmlSource(library=nvml)
    for temperature, threshold, reasons, memory, power in rounds:
        nvml.temperature, nvml.reasons, nvml.memory, nvml.power = (
            temperature,
            reasons,
            memory,
            power,
        )
        nvml.thresholds = dict.fromkeys(range(4), threshold)
        state = source.read()
        if state.level is ThermalLevel.NOMINAL:
            assert any(sensor.online for sensor in state.sensors)
        assert math.isnan(state.power) or state.power >= 0
        assert 0 <= state.throttle_bits < 2**64


def test_the_gpu_is_found_by_bus_id_and_by_uuid(nvml: StubNvml) -> None:
    nvml.count = 2
    nvml.handles = {"0000:3b:00.0": "handle 1", "GPU-3b": "handle 1", "0000:0b:00.0": "handle 0"}
    nvml.heat = {"handle 0": 88, "handle 1": 41}
    for device in ("0000:3b:00.0", "GPU-3b", 1):
        source = NvmlSource(device, library=nvml)
        assert source.read().sensors[0].temperature == 41
    assert NvmlSource("0000:0b:00.0", library=nvml).read().sensors[0].temperature == 88
    with pytest.raises(RuntimeUnavailableError):
        NvmlSource("0000:ff:00.0", library=nvml)
