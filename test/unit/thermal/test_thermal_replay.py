"""Recordings: what is written comes back in its own time; what is broken is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from gps_denied_inference.errors import InvalidParameterError, StorageError, ThermalReadError
from gps_denied_inference.thermal.policy import ThermalPolicy
from gps_denied_inference.thermal.replay import ReplaySource, ThermalRecorder, load_recording
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState, ThrottleCause

LEVELS = (ThermalLevel.NOMINAL, ThermalLevel.WARM, ThermalLevel.UNKNOWN, ThermalLevel.CRITICAL)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "flight.jsonl"
    clock = Clock()
    with ThermalRecorder(path, "sysfs", clock=clock) as recorder:
        for level in LEVELS:
            recorder.write(
                ThermalState(
                    source="sysfs",
                    level=level,
                    is_telemetry_available=level > 0,
                    clock=math.nan,
                    reason=f"made {level.name}",
                )
            )
            clock.now += 2.0
        assert recorder.count == 4
    return path


def test_a_recording_comes_back_in_its_own_time(recording: Path) -> None:
    clock = Clock()
    source = ReplaySource(recording, clock=clock)
    assert source.duration == pytest.approx(8.0)
    seen = []
    for _ in range(9):
        seen.append(source.read().level)
        clock.now += 1.0
    assert seen == [level for level in LEVELS for _ in range(2)] + [ThermalLevel.UNKNOWN]
    state = source.read()
    assert state.source == "replay"
    assert "flight.jsonl has ended" in state.reason


def test_faster_and_over_again(recording: Path) -> None:
    clock = Clock()
    source = ReplaySource(recording, speed=2.0, loop=True, clock=clock)
    seen = []
    for _ in range(8):
        state = source.read()
        seen.append(state.level)
        assert state.source == "replay"
        clock.now += 1.0
    assert seen == [*LEVELS, *LEVELS]


def test_every_line_is_json_without_nan(recording: Path) -> None:
    lines = recording.read_text().splitlines()
    assert len(lines) == 5
    for line in lines:
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_a_line_cut_off_at_the_end_costs_only_itself(recording: Path) -> None:
    text = recording.read_text()
    recording.write_text(text[:-40])
    assert len(load_recording(recording)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no thermal recording"),
        ("not json\n", "no thermal recording"),
        ('{"format": "other"}\n', "no thermal recording"),
        ('{"format": "gps_denied_inference.thermal", "version": 9}\n', "version 9"),
        ('{"format": "gps_denied_inference.thermal", "version": 1}\n', "holds no state"),
        ('{"format": "gps_denied_inference.thermal", "version": 1}\n3\n{}\n', "line 2"),
        (
            '{"format": "gps_denied_inference.thermal", "version": 1}\n'
            '{"t": 0, "state": {"level": "COOL"}}\n',
            "line 2.*COOL",
        ),
        (
            '{"format": "gps_denied_inference.thermal", "version": 1}\n'
            '{"t": 1, "state": {}}\n{"t": 0, "state": {}}\n',
            "line 3 goes back",
        ),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    with pytest.raises(ThermalReadError, match=said):
        load_recording(path)


def test_files_that_cannot_be_read_or_written(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(ThermalReadError, match="cannot be read"):
        load_recording(tmp_path / "absent.jsonl")
    with pytest.raises(StorageError, match="cannot be written"):
        ThermalRecorder(tmp_path / "absent" / "file.jsonl", "sysfs")
    with pytest.raises(InvalidParameterError):
        ReplaySource(recording, speed=0.0)


def test_a_real_gpu_s_recording() -> None:
    """An H100: 5 s idle, 20 s of matrix products at its power cap, 5 s after."""
    path = Path(__file__).parent / "recordings" / "h100_under_load.jsonl"
    clock = Clock()
    source = ReplaySource(path, clock=clock)
    policy = ThermalPolicy()
    seen: dict[int, list[ThermalState]] = {}
    while (state := source.read()).is_telemetry_available:
        seen.setdefault(state.throttle_bits, []).append(state)
        # A power cap that does its work is no reason to slow the node down.
        assert policy.update(state, clock.now).description == ""
        clock.now += 0.5
    assert 29.0 <= clock.now - 1000.0 <= 33.0
    # Idle is no throttling; the software power cap is one, but not by heat.
    assert {state.throttle_causes for state in seen[0x1]} == {ThrottleCause.NONE}
    assert {state.throttle_causes for state in seen[0x4]} == {ThrottleCause.POWER}
    assert not any(state.thermal_throttle_active for states in seen.values() for state in states)
    assert max(state.sensors[0].temperature for state in seen[0x4]) == 57.0
    assert min(state.clock for state in seen[0x4]) < 0.7 * 1.98e9
    assert all(state.sensors[0].limit == 87.0 for state in seen[0x4])
