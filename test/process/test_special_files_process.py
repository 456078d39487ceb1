"""Pipes, devices and homes of nobody in place of files: configure fails in one line, at once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("cryptography", reason="signatures need cryptography")

from node_process import UNCONFIGURED, driven
from rcl_interfaces.msg import ParameterType, ParameterValue

LIMIT = 5.0  # s; a configure that waits for a pipe's other end never answers
DEFAULTS = {"weights_file": "", "reference_file": "", "engine_public_key": ""}
DEFAULTS |= {"thermal_replay_file": "", "thermal_source": "none", "task": "extract"}


def text(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def test_each_file_parameter(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    cases: list[tuple[str, dict[str, str]]] = []
    for file in (str(pipe), "/dev/zero", "~nosuchuser/x", "/etc"):
        cases += [
            ("weights_file", {"weights_file": file}),
            ("engine_public_key", {"engine_public_key": file}),
            ("reference_file", {"reference_file": file, "task": "match"}),
            ("thermal_replay_file", {"thermal_replay_file": file, "thermal_source": "replay"}),
        ]
    engines = tmp_path / "engines"
    parameters = {
        "runtime": "onnxruntime",
        "device": "cpu",
        "threads": 1,
        "image_width": 64,
        "image_height": 64,
        "max_keypoints": 20,
        "engine_cache_directory": str(engines),
        "thermal_source": "none",
    }
    with driven(tmp_path, parameters=parameters) as (process, driver):

        def refused(file: str) -> None:
            before, started = len(process.output), time.monotonic()
            assert not driver.configure()
            assert time.monotonic() - started < LIMIT
            assert driver.state() == UNCONFIGURED
            driver.wait_until(lambda: "ERROR" in process.output[before:], "an error line")
            (line,) = [row for row in process.output[before:].splitlines() if "ERROR" in row]
            assert file in line

        now = dict(DEFAULTS)
        for _, changes in cases:
            wanted = {**DEFAULTS, **changes}
            # The file before what needs it, and what needs it away before the file.
            order = sorted(wanted, key=lambda name: name == "thermal_source")
            for name in order if changes.get("thermal_source") else reversed(order):
                if now[name] != wanted[name]:
                    taken, reason = driver.set_parameter(name, text(wanted[name]))
                    assert taken, reason
            now = wanted
            refused(next(value for value in changes.values()))
        for name in sorted(DEFAULTS, key=lambda name: name != "thermal_source"):
            if now[name] != DEFAULTS[name]:
                taken, reason = driver.set_parameter(name, text(DEFAULTS[name]))
                assert taken, reason
        assert driver.configure(), process.output
        assert driver.cleanup()
        taken, reason = driver.set_parameter("engine_policy", text("load_only"))
        assert taken, reason
        (engine,) = engines.glob("*/engine.onnx")
        for special in (engine, engine.with_name("engine.onnx.manifest.json")):
            aside = tmp_path / special.name
            shutil.move(special, aside)
            os.mkfifo(special)
            refused(str(engine))
            special.unlink()
            shutil.move(aside, special)
        assert driver.configure(), process.output
