"""``gdi thermal``: one reading, a recording, and its replay, on made-up trees of kernel files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gps_denied_inference.cli.main import main


@pytest.fixture
def root(tmp_path: Path) -> Path:
    zone = tmp_path / "root/sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("gpu-thermal [/x]\n")
    (zone / "temp").write_text("95000\n")
    (zone / "trip_point_0_type").write_text("passive\n")
    (zone / "trip_point_0_temp").write_text("99000\n")
    return tmp_path / "root"


def test_once_prints_and_writes_one_reading(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "state.json"
    arguments = ["thermal", "--source", "sysfs", "--sysfs-root", str(root), "--once"]
    assert main([*arguments, "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert "WARM" in said
    assert "gpu-thermal" in said
    data = json.loads(out.read_text())
    assert data["source"] == "sysfs"
    assert data["state"]["level"] == "WARM"
    assert data["state"]["sensors"][0]["temperature"] == 95.0


def test_once_without_a_valid_reading_is_exit_code_1(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "sys/class/thermal/thermal_zone0/temp").write_text("-256000\n")
    arguments = ["thermal", "--source", "sysfs", "--sysfs-root", str(root), "--once"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "UNKNOWN" in said
    assert "offline" in said


def test_what_is_recorded_can_be_replayed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, report = tmp_path / "flight.jsonl", tmp_path / "replay.json"
    reading = ["--source", "sysfs", "--sysfs-root", str(root), "--period", "0.05"]
    assert main(["thermal", *reading, "--duration", "0.6", "--record", str(recording)]) == 0
    assert "recorded" in capsys.readouterr().err
    lines = recording.read_text().splitlines()
    assert len(lines) >= 3
    assert "frame rate at most 20 Hz" in json.loads(lines[-1])["state"]["action"]
    arguments = ["thermal", "--replay", str(recording), "--period", "0.05"]
    assert main([*arguments, "--json", str(report)]) == 0
    state = json.loads(report.read_text())["state"]
    assert (state["source"], state["level"]) == ("replay", "WARM")


def test_a_forced_source_that_is_not_here_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["thermal", "--source", "sysfs", "--sysfs-root", str(tmp_path), "--once"]) == 1
    said = capsys.readouterr().err
    assert "no temperature sensor" in said
    assert said.count("\n") == 1


def test_no_duration_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["thermal", "--source", "none", "--duration", "0"]) == 1
    assert "--duration" in capsys.readouterr().err
