"""The kernel's files: trees of five boards, and what happens when files go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.thermal.state import SensorKind, ThermalLevel, ThrottleCause
from gps_denied_inference.thermal.sysfs_source import SysfsSource

Board = Callable[[str], Any]


def sensors(source: SysfsSource) -> dict[str, Any]:
    return {sensor.name: sensor for sensor in source.read().sensors}


@pytest.mark.parametrize("name", ["orin_nx", "orin_nano", "xavier", "laptop", "raspberry_pi"])
def test_every_cool_board_is_nominal(board: Board, name: str) -> None:
    state = SysfsSource(board(name).root).read()
    assert state.level is ThermalLevel.NOMINAL
    assert state.is_telemetry_available
    assert not state.thermal_throttle_active
    assert state.throttle_causes is ThrottleCause.NONE
    assert state.source == "sysfs"
    assert state.sample_age == 0
    assert state.stamp_ns > 0


@pytest.mark.parametrize(("name", "most"), [("orin_nx", 918e6), ("orin_nano", 624.75e6)])
def test_orin_in_full(board: Board, name: str, most: float) -> None:
    state = SysfsSource(board(name).root).read()
    gpu = next(sensor for sensor in state.sensors if sensor.name == "gpu-thermal")
    assert (gpu.kind, gpu.online) == (SensorKind.GPU, True)
    assert (gpu.temperature, gpu.limit) == (pytest.approx(46.1), pytest.approx(99.0))
    assert gpu.margin == pytest.approx(52.9)
    cv = next(sensor for sensor in state.sensors if sensor.name == "cv0-thermal")
    assert not cv.online
    assert math.isnan(cv.temperature)
    assert (state.clock, state.clock_max) == (306e6, most)
    assert state.load == pytest.approx(0.523)
    assert state.power == pytest.approx(4.984 * 1.2)
    assert state.power_mode == ("15W" if name == "orin_nano" else "MAXN")
    assert "cpu-thermal 48.3 degC" in state.reason


@pytest.mark.parametrize(
    ("celsius", "level"),
    [
        (88.9, ThermalLevel.NOMINAL),
        (89.0, ThermalLevel.WARM),
        (98.9, ThermalLevel.WARM),
        (99.0, ThermalLevel.THROTTLING),
        (102.4, ThermalLevel.THROTTLING),
        (102.5, ThermalLevel.CRITICAL),
        (104.5, ThermalLevel.CRITICAL),
    ],
)
def test_orin_heats_up(board: Board, celsius: float, level: ThermalLevel) -> None:
    tree = board("orin_nx")
    tree.heat("sys/class/thermal/thermal_zone1", celsius)
    state = SysfsSource(tree.root).read()
    assert state.level is level
    if level > ThermalLevel.NOMINAL:
        assert "gpu-thermal" in state.reason
    # Hot is not yet throttled: that is what the cooling devices say.
    assert not state.thermal_throttle_active


def test_a_throttle_alert_is_thermal_throttling(board: Board) -> None:
    tree = board("orin_nx")
    source = SysfsSource(tree.root)
    tree.set("sys/class/thermal/cooling_device2/cur_state", 1)
    state = source.read()
    assert state.level is ThermalLevel.THROTTLING
    assert state.thermal_throttle_active
    assert state.throttle_causes is ThrottleCause.THERMAL
    tree.set("sys/class/thermal/cooling_device2/cur_state", 0)
    assert source.read().level is ThermalLevel.NOMINAL


def test_a_passive_step_is_warm_and_throttling_once_over_the_limit(board: Board) -> None:
    tree = board("orin_nx")
    source = SysfsSource(tree.root)
    tree.set("sys/class/thermal/cooling_device5/cur_state", 3)
    state = source.read()
    assert state.level is ThermalLevel.WARM
    assert "cpufreq-cpu0" in state.reason
    assert not state.thermal_throttle_active
    tree.heat("sys/class/thermal/thermal_zone0", 99.5)
    state = source.read()
    assert state.level is ThermalLevel.THROTTLING
    assert state.thermal_throttle_active


def test_over_current_counts_are_differences(board: Board) -> None:
    tree = board("orin_nx")
    source = SysfsSource(tree.root)
    counter = "sys/class/hwmon/hwmon1/oc3_event_cnt"
    # oc2 stood at 4 before we came: that is history.
    assert source.read().throttle_causes is ThrottleCause.NONE
    tree.set(counter, 2)
    state = source.read()
    assert state.throttle_causes is ThrottleCause.OVER_CURRENT
    assert state.level is ThermalLevel.THROTTLING
    assert state.throttle_bits == 1 << 34
    assert not state.thermal_throttle_active
    assert source.read().throttle_causes is ThrottleCause.NONE
    # A counter that starts anew is no event; nor is one that vanishes and comes back as it was.
    tree.set(counter, 0)
    assert source.read().throttle_causes is ThrottleCause.NONE
    tree.remove(counter)
    assert source.read().throttle_causes is ThrottleCause.NONE
    tree.set(counter, 0)
    assert source.read().throttle_causes is ThrottleCause.NONE


def test_xavier_leaves_out_the_constant_power_chip(board: Board) -> None:
    source = SysfsSource(board("xavier").root)
    found = sensors(source)
    assert not found["PMIC-Die"].online
    assert found["CPU-therm"].limit == 86.0
    assert math.isnan(found["AO-therm"].limit)
    assert source.read().power_mode == "mode 8"


def test_laptop_unset_trips_are_no_limits(board: Board) -> None:
    tree = board("laptop")
    source = SysfsSource(tree.root)
    found = sensors(source)
    assert math.isnan(found["x86_pkg_temp"].limit)
    assert math.isnan(found["acpitz"].limit)
    assert found["coretemp Package id 0"].limit == 100.0
    assert not found["iwlwifi_1"].online
    tree.set("proc/stat", "cpu  175 0 100 825 0 0 0 0 0 0")
    state = source.read()
    assert state.load == pytest.approx(0.75)
    assert (state.clock, state.clock_max) == (2.4e9, 4.8e9)
    # No limit is known for the package: the assumed one is named as such.
    tree.heat("sys/class/thermal/thermal_zone2", 96.0)
    state = source.read()
    assert state.level is ThermalLevel.THROTTLING
    assert "assumed limit 95.0 degC" in state.reason


@pytest.mark.parametrize(
    ("word", "causes", "level"),
    [
        ("0", ThrottleCause.NONE, ThermalLevel.NOMINAL),
        ("50000", ThrottleCause.NONE, ThermalLevel.NOMINAL),
        ("50005", ThrottleCause.POWER, ThermalLevel.THROTTLING),
        ("e0006", ThrottleCause.THERMAL, ThermalLevel.THROTTLING),
        ("8", ThrottleCause.THERMAL, ThermalLevel.THROTTLING),
        ("0x9", ThrottleCause.POWER | ThrottleCause.THERMAL, ThermalLevel.THROTTLING),
        ("nonsense", ThrottleCause.NONE, ThermalLevel.NOMINAL),
    ],
)
def test_raspberry_pi_firmware_bits(
    board: Board, word: str, causes: ThrottleCause, level: ThermalLevel
) -> None:
    tree = board("raspberry_pi")
    tree.set("sys/devices/platform/soc/soc:firmware/get_throttled", word)
    state = SysfsSource(tree.root).read()
    assert (state.throttle_causes, state.level) == (causes, level)
    assert state.thermal_throttle_active == bool(causes & ThrottleCause.THERMAL)
    assert state.throttle_bits == (int(word, 16) if word != "nonsense" else 0)


def test_an_empty_tree_is_unavailable_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"no temperature sensor.*; .+") as caught:
        SysfsSource(tmp_path)
    assert caught.value.hint


def test_a_tree_whose_files_vanish_is_unknown_and_comes_back(board: Board) -> None:
    tree = board("raspberry_pi")
    source = SysfsSource(tree.root)
    temperature = "sys/class/thermal/thermal_zone0/temp"
    tree.remove(temperature)
    state = source.read()
    assert (state.level, state.is_telemetry_available) == (ThermalLevel.UNKNOWN, False)
    assert [sensor.online for sensor in state.sensors] == [False]
    assert "no sensor gives a valid reading" in state.reason
    (tree.root / "sys/class/thermal").rename(tree.root / "sys/class/gone")
    assert source.read().sensors == ()
    (tree.root / "sys/class/gone").rename(tree.root / "sys/class/thermal")
    tree.set(temperature, 61000)
    assert source.read().level is ThermalLevel.NOMINAL


def test_a_level_ends_only_when_clearly_cooler(board: Board) -> None:
    tree = board("raspberry_pi")
    source = SysfsSource(tree.root)
    levels = []
    for celsius in (84.0, 85.0, 84.0, 82.5, 82.0, 81.9, 84.9):
        tree.heat("sys/class/thermal/thermal_zone0", celsius)
        levels.append(source.read().level.name)
    assert levels == ["NOMINAL", "WARM", "WARM", "WARM", "WARM", "NOMINAL", "NOMINAL"]


def test_a_battery_alone_is_no_reading_of_the_computer(tree: Any) -> None:
    tree.zone("battery", 30.0)
    state = SysfsSource(tree.root).read()
    assert state.level is ThermalLevel.UNKNOWN
    assert "battery" in state.reason


NONSENSE = st.one_of(
    st.sampled_from(
        ["", "nan", "-256000", "1000000000", "inf", "-1e400", "9" * 400, "\0\0", "x", "4_2", "N/A"]
    ),
    st.integers(-300_000, 300_000).map(str),
    st.binary(max_size=12).map(lambda raw: raw.decode("latin-1")),
    st.none(),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NONSENSE, NONSENSE, NONSENSE, NONSENSE), max_size=6))
def test_no_file_content_raises_or_passes_for_cool(board: Board, rounds: Any) -> None:
    tree = board("orin_nx")
    source = SysfsSource(tree.root)
    files = [
        *(f"sys/class/thermal/thermal_zone{number}/temp" for number in range(6)),
        "sys/class/thermal/thermal_zone0/trip_point_0_temp",
        "sys/class/thermal/cooling_device5/cur_state",
        "sys/class/hwmon/hwmon1/oc1_event_cnt",
        "sys/class/devfreq/17000000.gpu/device/load",
        "sys/class/devfreq/17000000.gpu/cur_freq",
        "sys/class/hwmon/hwmon0/curr1_input",
        "var/lib/nvpmodel/status",
    ]
    for values in rounds:
        for number, file in enumerate(files):
            value = values[number % 4]
            path = tree.root / file
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_bytes(value.encode("latin-1", "replace"))
        state = source.read()
        online = [sensor for sensor in state.sensors if sensor.online]
        if state.level is ThermalLevel.NOMINAL:
            assert online
        for sensor in online:
            assert -60 <= sensor.temperature <= 150
        assert state.is_telemetry_available == (state.level is not ThermalLevel.UNKNOWN)
        assert math.isnan(state.load) or 0 <= state.load <= 1
