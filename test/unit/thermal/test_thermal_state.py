"""The plain twin of the message: numbers, safe default, and the way to JSON and back."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.errors import ThermalReadError
from gps_denied_inference.thermal.state import (
    SensorKind,
    ThermalLevel,
    ThermalSensor,
    ThermalState,
    ThrottleCause,
    one_line,
)

MESSAGES = Path(__file__).resolve().parents[3] / "msg"


@pytest.mark.parametrize(
    ("message", "prefix", "kind"),
    [
        ("ThermalState", "LEVEL", ThermalLevel),
        ("ThermalState", "CAUSE", ThrottleCause),
        ("ThermalSensor", "KIND", SensorKind),
    ],
)
def test_numbers_are_the_message_s(message: str, prefix: str, kind: Any) -> None:
    text = (MESSAGES / f"{message}.msg").read_text()
    said = dict(re.findall(rf"^uint8 {prefix}_(\w+)=(\d+)", text, re.MULTILINE))
    members = kind.__members__.items()
    assert {name: int(number) for name, number in said.items()} == {
        name: int(member) for name, member in members
    }


@pytest.mark.parametrize(
    ("message", "kind"), [("ThermalState", ThermalState), ("ThermalSensor", ThermalSensor)]
)
def test_fields_are_the_message_s(message: str, kind: Any) -> None:
    text = (MESSAGES / f"{message}.msg").read_text()
    said = re.findall(r"^[\w/\[\]]+ +([a-z_]+)\s*(?:#.*)?$", text, re.MULTILINE)
    own = [name for name in kind.__dataclass_fields__ if name != "stamp_ns"]
    assert [name for name in said if name != "header"] == own


def test_the_default_is_the_safe_one() -> None:
    for state in (ThermalState(), ThermalState.unknown("why\nnot")):
        assert state.level is ThermalLevel.UNKNOWN
        assert not state.is_telemetry_available
        assert not state.thermal_throttle_active
        assert state.throttle_causes is ThrottleCause.NONE
        assert math.isnan(state.sample_age)
        assert math.isnan(state.frame_rate_limit)
        assert state.hottest is None
        assert state.tightest is None
    assert ThermalState.unknown("why\n\0 not").reason == "why not"


texts = st.text().map(one_line)
numbers = st.one_of(st.just(math.nan), st.floats(-1e9, 1e9))
made_sensors = st.builds(
    ThermalSensor, texts, st.sampled_from(SensorKind), st.booleans(), numbers, numbers, numbers
)


@st.composite
def states(draw: Any) -> ThermalState:
    level = draw(st.sampled_from(ThermalLevel))
    return ThermalState(
        stamp_ns=draw(st.integers(0, 2**31 * 10**9 - 1)),
        source=draw(st.sampled_from(["jtop", "nvml", "sysfs", "replay", "none"])),
        level=level,
        is_telemetry_available=level is not ThermalLevel.UNKNOWN,
        thermal_throttle_active=draw(st.booleans()),
        throttle_causes=ThrottleCause(draw(st.sampled_from([0, 1, 2, 5, 7, 128, 135]))),
        throttle_bits=draw(st.integers(0, 2**64 - 1)),
        sensors=tuple(draw(st.lists(made_sensors, max_size=3))),
        clock=draw(numbers),
        load=draw(numbers),
        power_mode=draw(texts),
        sample_age=draw(numbers),
        reason=draw(texts),
        frame_rate_limit=draw(numbers),
        keypoint_limit=draw(st.integers(0, 2**31)),
    )


@given(states())
def test_json_and_back(state: ThermalState) -> None:
    text = json.dumps(state.to_dict(), allow_nan=False)
    # repr, since NaN is not equal to itself
    assert repr(ThermalState.from_dict(json.loads(text))) == repr(state)


@pytest.mark.parametrize(
    "change",
    [
        {"level": "COOL"},
        {"level": 9},
        {"is_telemetry_available": False},
        {"level": "UNKNOWN"},
        {"clock": "fast"},
        {"clock": True},
        {"clock": 10**400},
        {"throttle_causes": "heat"},
        {"sensors": 3},
        {"sensors": [{"kind": "CPU"}]},
        {"sensors": ["cpu"]},
        {"reason": None},
        {"keypoint_limit": 1.5},
        {"keypoint_limit": -1},
        {"throttle_bits": 2**64},
        {"stamp_ns": -1},
        {"power": 1e39},
    ],
)
def test_a_dict_that_makes_no_state_is_refused(change: dict[str, Any]) -> None:
    good = ThermalState(level=ThermalLevel.WARM, is_telemetry_available=True).to_dict()
    ThermalState.from_dict(good)
    with pytest.raises(ThermalReadError):
        ThermalState.from_dict({**good, **change})


def test_hottest_and_tightest_are_of_online_sensors() -> None:
    cool = ThermalSensor("cool", SensorKind.GPU, True, 60.0, 65.0, 5.0)
    hot = ThermalSensor("hot", SensorKind.CPU, True, 80.0, 100.0, 20.0)
    off = ThermalSensor("off", SensorKind.SOC, False)
    state = ThermalState(sensors=(off, cool, hot))
    assert state.hottest is hot
    assert state.tightest is cool
