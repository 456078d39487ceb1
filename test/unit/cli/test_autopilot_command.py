"""``gdi autopilot`` against a stand-in."""

from __future__ import annotations

import pytest

pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from stand_in_autopilot import StandInAutopilot
from test_link import free_port

from gps_denied_inference.cli.main import main


def test_it_says_what_it_hears_and_what_became_of_positions(capsys) -> None:
    port = free_port()
    url = f"udp:127.0.0.1:{port}"
    with StandInAutopilot(port) as autopilot:
        assert main(["autopilot", url, "--seconds", "2", "--position", "47.5,8.5"]) == 0
        sent = autopilot.of("GLOBAL_POSITION_SENSOR")
    out = capsys.readouterr().out
    assert "px4, armed, attitude ready" in out
    assert "position    47.0000000, 8.0000000" in out
    assert f"sent {len(sent)}" in out
    assert {(m.lat, m.lon) for m in sent} == {(475_000_000, 85_000_000)}


def test_silence_is_exit_code_one(capsys) -> None:
    assert main(["autopilot", f"udp:127.0.0.1:{free_port()}", "--seconds", "0.5"]) == 1
    assert "no packet came" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--position", "north"], ["--seconds", "nan"]])
def test_arguments_that_are_none_are_one_line(option: list[str], capsys) -> None:
    assert main(["autopilot", f"udp:127.0.0.1:{free_port()}", *option]) == 1
    assert option[0].strip("-") in capsys.readouterr().err
