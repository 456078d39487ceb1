"""The chooser: explicit order, reasons for what was passed over, no silent fallback."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gps_denied_inference.thermal as thermal
from gps_denied_inference.errors import (
    RuntimeUnavailableError,
    ThermalReadError,
    UnknownNameError,
)
from gps_denied_inference.thermal import choose_source, explain_choice
from gps_denied_inference.thermal.state import ThermalLevel, ThermalState

GOOD = ThermalState(level=ThermalLevel.NOMINAL, is_telemetry_available=True)


class Fake:
    def __init__(self, name: str, read: Callable[[], ThermalState]) -> None:
        self.name = name
        self.read = read
        self.closed = False

    def close(self) -> None:
        self.closed = True


def fail(error: Exception) -> Any:
    raise error


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Name -> what opening that source does."""
    table: dict[str, Any] = {}
    monkeypatch.setattr(thermal, "_open", lambda name, *_: table[name]())
    return table


def unavailable(name: str) -> Callable[[], Any]:
    return lambda: fail(RuntimeUnavailableError(f"{name} is not here", "install it"))


def test_auto_takes_the_first_that_reads(opened: dict[str, Any]) -> None:
    mute = Fake("nvml", lambda: ThermalState.unknown("no sensor"))
    opened["jtop"] = unavailable("jtop")
    opened["nvml"] = lambda: mute
    opened["sysfs"] = lambda: Fake("sysfs", lambda: GOOD)
    choice = explain_choice()
    assert choice.source.name == "sysfs"
    assert choice.passed_over == (("jtop", "jtop is not here; install it"), ("nvml", "no sensor"))
    assert mute.closed


def test_auto_prefers_jtop(opened: dict[str, Any]) -> None:
    opened["jtop"] = lambda: Fake("jtop", lambda: GOOD)
    assert explain_choice().source.name == "jtop"


def test_auto_passes_over_a_source_that_hangs(
    opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(thermal, "PROBE_TIMEOUT", 0.2)
    opened["jtop"] = lambda: gate.wait(60)
    opened["nvml"] = lambda: Fake("nvml", lambda: fail(ThermalReadError("read failed")))
    opened["sysfs"] = lambda: Fake("sysfs", lambda: GOOD)
    choice = explain_choice()
    gate.set()
    assert choice.source.name == "sysfs"
    assert "did not answer" in choice.passed_over[0][1]
    assert choice.passed_over[1] == ("nvml", "read failed")


def test_auto_with_nothing_is_none_and_unknown_with_every_reason(opened: dict[str, Any]) -> None:
    for name in ("jtop", "nvml", "sysfs"):
        opened[name] = unavailable(name)
    source = choose_source()
    state = source.read()
    assert source.name == "none"
    assert (state.level, state.is_telemetry_available) == (ThermalLevel.UNKNOWN, False)
    for name in ("jtop", "nvml", "sysfs"):
        assert f"{name}: {name} is not here" in state.reason


@pytest.mark.parametrize("name", ["jtop", "sysfs"])
def test_a_forced_source_that_is_not_here_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        choose_source(name, sysfs_root=tmp_path)
    assert caught.value.hint


def test_forced_sysfs_with_another_root(board: Callable[[str], Any]) -> None:
    source = choose_source("sysfs", sysfs_root=board("xavier").root)
    assert source.name == "sysfs"
    assert source.read().level is ThermalLevel.NOMINAL


def test_replay_is_taken_where_a_recording_is_given(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="needs a recording"):
        choose_source("replay")
    path = tmp_path / "flight.jsonl"
    path.write_text(
        '{"format": "gps_denied_inference.thermal", "version": 1}\n{"t": 0, "state": {}}\n'
    )
    assert choose_source("auto", replay=path).name == "replay"
    assert choose_source("replay", replay=path).name == "replay"


def test_none_and_unknown_names() -> None:
    assert choose_source("none").read().level is ThermalLevel.UNKNOWN
    with pytest.raises(UnknownNameError, match="known are"):
        choose_source("thermometer")


def test_importing_the_package_imports_no_vendor_s_library() -> None:
    code = (
        "import sys, gps_denied_inference.thermal, gps_denied_inference.thermal.monitor, "
        "gps_denied_inference.thermal.policy; "
        "print([name for name in ('pynvml', 'jtop', 'rclpy', 'torch', 'numpy', 'cv2') "
        "if name in sys.modules])"
    )
    root = Path(thermal.__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert out.stdout.strip() == "[]"
