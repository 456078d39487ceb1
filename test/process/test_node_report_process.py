"""The report of the node on a GPU, rehearsed on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import ROOT, textured_frames

SCRIPT = ROOT / "benchmarks" / "gpu" / "node_report.py"


def run_report(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, frame in zip(range(3), textured_frames(), strict=False):
        assert cv2.imwrite(str(pictures / f"{number}.png"), frame)
    command = [sys.executable, str(SCRIPT), "--frames", str(pictures)]
    command += ["--json", str(folder / "node.json"), "--domain", os.environ["ROS_DOMAIN_ID"]]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=200, check=False
    )


def test_what_was_flown_is_in_the_report(tmp_path: Path) -> None:
    only = "extract fp32 640x480 30 Hz"
    done = run_report(tmp_path, "--device", "cpu", "--seconds", "1", "--only", only)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "node.json").read_text())
    assert report["failed"] == {}
    assert report["machine"]["onnxruntime"]
    (run,) = report["runs"].values()
    assert run["engines_built"] == 1
    assert run["configure_s"] > run["engine_load_s"] > 0
    assert run["read_back"]["provider"] == "CPUExecutionProvider"
    frames = run["frames"]
    assert frames["sent"] == 30
    assert frames["out"] > 0
    assert frames["in"] == frames["out"] + sum(frames["dropped"].values())
    assert frames["sent"] == frames["in"] + frames["never_heard_of"]
    assert frames["received_by_subscriber"] == frames["out"]
    for stage in ("convert", "infer", "publish", "end_to_end"):
        assert 0 < run["latency_ms"][stage]["p50"] <= run["latency_ms"][stage]["p95"]
    end_to_end = run["latency_ms"]["end_to_end"]["p50"]
    assert run["stamp_to_subscriber_ms"]["p50"] > end_to_end > run["latency_ms"]["infer"]["p50"]


def test_a_run_that_fails_is_named_and_the_exit_code_says_so(tmp_path: Path) -> None:
    done = run_report(tmp_path, "--device", "cuda:63", "--seconds", "1", "--only", "fp32 640x480 5")
    assert done.returncode == 2, "no such run"
    done = subprocess.run(
        [*done.args[:-1], "extract fp32 640x480"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    report = json.loads((tmp_path / "node.json").read_text())
    assert report["runs"] == {}
    (reason,) = report["failed"].values()
    assert "cuda:63" in reason
