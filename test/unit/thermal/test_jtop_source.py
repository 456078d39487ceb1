"""jtop through a stub of its documented API (jetson-stats 4: properties of a started client)."""

from __future__ import annotations

import math
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gps_denied_inference.errors import RuntimeUnavailableError, ThermalReadError
from gps_denied_inference.thermal.jtop_source import JtopSource, gpu_of, power_of, readings_of
from gps_denied_inference.thermal.state import SensorKind, ThermalLevel


class StubJtop:
    """Stub of ``jtop.jtop``."""

    def __init__(self) -> None:
        self.alive: Any = True
        self.starts = 0
        self.closes = 0
        self.start_error: Exception | None = None
        self.temperature: Any = {
            "cpu": {"temp": 48.3, "online": True},
            "gpu": {"temp": 46.0, "online": True},
            "cv0": {"temp": -256, "online": False},
            "tj": {"temp": 48.3, "online": True},
        }
        self.power: Any = {"rail": {}, "tot": {"power": 5980, "avg": 6000}}
        self.gpu: Any = {
            "ga10b": {"status": {"load": 52.3}, "freq": {"cur": 306000, "max": 918000}}
        }
        self.nvpmodel: Any = "MAXN"

    def start(self) -> None:
        self.starts += 1
        if self.start_error is not None:
            raise self.start_error

    def ok(self, spin: bool = False) -> bool:
        assert spin, "the blocking form would hold the reader up"
        if isinstance(self.alive, Exception):
            raise self.alive
        return bool(self.alive)

    def close(self) -> None:
        self.closes += 1


@pytest.fixture
def jtop() -> StubJtop:
    return StubJtop()


def source_of(jtop: StubJtop, root: Any) -> JtopSource:
    return JtopSource(sysfs_root=root, connect=lambda: jtop, timeout=20.0)


def test_an_orin_in_full(jtop: StubJtop, board: Callable[[str], Any]) -> None:
    state = source_of(jtop, board("orin_nx").root).read()
    assert (state.source, state.level) == ("jtop", ThermalLevel.NOMINAL)
    gpu = next(sensor for sensor in state.sensors if sensor.name == "gpu")
    # The limit is the kernel's, since jtop does not say it.
    assert (gpu.kind, gpu.temperature, gpu.limit) == (SensorKind.GPU, 46.0, 99.0)
    off = next(sensor for sensor in state.sensors if sensor.name == "cv0")
    assert not off.online
    assert math.isnan(off.temperature)
    assert (state.clock, state.clock_max) == (306e6, 918e6)
    assert state.load == pytest.approx(0.523)
    assert state.power == pytest.approx(5.98)
    assert state.power_mode == "MAXN"


def test_the_kernel_s_throttle_alert_counts_under_jtop(
    jtop: StubJtop, board: Callable[[str], Any]
) -> None:
    tree = board("orin_nx")
    source = source_of(jtop, tree.root)
    tree.set("sys/class/thermal/cooling_device2/cur_state", 1)
    state = source.read()
    assert state.level is ThermalLevel.THROTTLING
    assert state.thermal_throttle_active


def test_without_kernel_files_limits_are_assumed(jtop: StubJtop, tmp_path: Any) -> None:
    jtop.temperature["gpu"]["temp"] = 86.0
    state = source_of(jtop, tmp_path).read()
    assert state.level is ThermalLevel.THROTTLING
    assert "assumed limit 85.0" in state.reason
    assert math.isnan(state.sensors[1].limit)


def test_all_sensors_offline_is_unknown(jtop: StubJtop, tmp_path: Any) -> None:
    jtop.temperature = {"cpu": {"temp": -256, "online": False}, "gpu": {"temp": -256}}
    state = source_of(jtop, tmp_path).read()
    assert state.level is ThermalLevel.UNKNOWN
    assert [sensor.online for sensor in state.sensors] == [False, False]


def test_an_offline_sensor_s_old_number_does_not_count(jtop: StubJtop, tmp_path: Any) -> None:
    jtop.temperature = {"cpu": {"temp": 45.0, "online": False}}
    state = source_of(jtop, tmp_path).read()
    assert state.level is ThermalLevel.UNKNOWN
    assert not state.sensors[0].online


def test_limits_of_jtop_come_before_the_kernel_s(
    jtop: StubJtop, board: Callable[[str], Any]
) -> None:
    jtop.temperature = {
        "cpu": {"temp": 45.0, "online": True, "max": 90.0, "crit": 95.0},
        "gpu": {"temp": 45.0, "online": True, "max": -256, "crit": -256},
    }
    cpu, gpu = source_of(jtop, board("orin_nx").root).read().sensors
    assert (cpu.limit, gpu.limit) == (90.0, 99.0)


def test_missing_properties_are_not_measured(tmp_path: Any) -> None:
    jtop = StubJtop()
    for name in ("power", "gpu", "nvpmodel"):
        delattr(jtop, name)
    state = source_of(jtop, tmp_path).read()
    assert state.level is ThermalLevel.NOMINAL
    assert math.isnan(state.power)
    assert math.isnan(state.clock)
    assert state.power_mode == ""


def test_the_flat_form_of_version_3(tmp_path: Any) -> None:
    readings = readings_of({"CPU": 50.5, "thermal": 49.0, "PLL": 10**400})
    assert [reading.temperature for reading in readings][:2] == [50.5, 49.0]
    assert math.isnan(readings[2].temperature)
    assert math.isnan(power_of((1, 2)))
    assert all(math.isnan(value) for value in gpu_of({"val": 3}))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory"),
        PermissionError(13, "Permission denied"),
        RuntimeError("Mismatch version jtop service: [4.2.0] and client: [4.3.1].\nPlease run:\n"),
    ],
)
def test_a_service_that_cannot_be_used_is_a_reason(
    jtop: StubJtop, error: Exception, tmp_path: Any
) -> None:
    jtop.start_error = error
    with pytest.raises(RuntimeUnavailableError, match="jtop cannot be used") as caught:
        source_of(jtop, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(error).split("\n")[0] in str(caught.value)
    assert "jtop.service" in caught.value.hint


def test_a_service_that_never_answers_is_a_reason(tmp_path: Any) -> None:
    gate = threading.Event()
    with pytest.raises(RuntimeUnavailableError, match="did not answer within"):
        JtopSource(sysfs_root=tmp_path, connect=lambda: gate.wait(60), timeout=0.1)
    gate.set()


@pytest.mark.parametrize("alive", [False, RuntimeError("Lost connection with jtop server")])
def test_a_service_that_goes_away_is_an_error_and_the_next_read_reconnects(
    jtop: StubJtop, alive: Any, tmp_path: Any
) -> None:
    source = source_of(jtop, tmp_path)
    jtop.alive = alive
    with pytest.raises(ThermalReadError):
        source.read()
    assert jtop.closes == 1
    jtop.start_error = ConnectionRefusedError(111, "Connection refused")
    with pytest.raises(RuntimeUnavailableError):
        source.read()
    jtop.start_error, jtop.alive = None, True
    assert source.read().level is ThermalLevel.NOMINAL
    assert jtop.starts == 3


def test_close_twice(jtop: StubJtop, tmp_path: Any) -> None:
    source = source_of(jtop, tmp_path)
    source.close()
    source.close()
    assert jtop.closes == 1


def test_the_client_is_the_library_s_when_none_is_given(
    jtop: StubJtop, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    module = types.ModuleType("jtop")
    module.jtop = lambda: jtop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jtop", module)
    assert JtopSource(sysfs_root=tmp_path).read().is_telemetry_available
    monkeypatch.setitem(sys.modules, "jtop", None)
    with pytest.raises(RuntimeUnavailableError, match="jetson-stats cannot be imported"):
        JtopSource(sysfs_root=tmp_path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(
            st.sampled_from(["temp", "online", "tot", "power", "status", "freq", "cpu", "max"]),
            children,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(JSON, JSON, JSON)
def test_no_shape_of_data_raises(temperature: Any, power: Any, gpu: Any) -> None:
    jtop = StubJtop()
    jtop.temperature, jtop.power, jtop.gpu = temperature, power, gpu
    source = source_of(jtop, Path("/nonexistent"))
    state = source.read()
    if state.level is ThermalLevel.NOMINAL:
        assert any(sensor.online for sensor in state.sensors)
