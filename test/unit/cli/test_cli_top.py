"""What ``gdi top`` shows of a status, as plain lines."""

from __future__ import annotations

import io

from rich.console import Console

from gps_denied_inference.cli.top import rows, table

NAN = float("nan")


def status(**changes):
    fields = {
        "state": 3, "detail": "", "task_ok": True, "task_detail": "",
        "progress": NAN, "task": "extract", "runtime": "onnxruntime",
        "runtime_version": "1.22.0",
        "provider": "CPUExecutionProvider", "device": "cpu", "precision": "fp32",
        "selection": "tensorrt: not installed", "model": "xfeat", "model_sha256": "ab" * 32,
        "engine_width": 640, "engine_height": 480, "max_keypoints": 1000, "frames_in": 20,
        "frames_out": 16, "frames_dropped": 3, "drop_reasons": ["superseded", "malformed"],
        "drop_counts": [2, 1], "rate": 19.96, "time_since_frame": 0.04,
        "stages": ["end_to_end"], "latency_p50": [0.0301], "latency_p95": [0.042],
        "latency_p99": [0.05],
    }  # fmt: skip
    return fields | changes


def thermal(**changes):
    sensors = [
        {"online": True, "temperature": 61.2},
        {"online": False, "temperature": 900.0},
        {"online": True, "temperature": 55.0},
    ]
    fields = {"level": 2, "source": "sysfs", "sensors": sensors, "action": "", "reason": "near"}
    return fields | changes


def test_a_running_node() -> None:
    shown = dict(rows(status(), thermal(), 0.1))
    assert shown["state"] == "active"
    assert shown["runtime"] == "onnxruntime 1.22.0, CPUExecutionProvider, cpu, fp32"
    assert shown["frames"] == "20 in, 16 out, 3 dropped, 1 in work"
    assert shown["rate"] == "20.0 Hz"
    assert shown["end to end"] == "30.1 / 42.0 / 50.0 ms (p50 / p95 / p99)"
    assert shown["thermal"] == "WARM, hottest sensor 61 degrees Celsius (sysfs): near"
    assert ("", "superseded: 2") in rows(status(), None, 0.1)


def test_configuring_shows_progress_and_no_engine() -> None:
    shown = dict(rows(status(state=10, progress=0.4, detail="building", provider=""), None, 0.0))
    assert shown["state"] == "configuring 40%"
    assert shown["detail"] == "building"
    assert "runtime" not in shown
    assert "thermal" not in shown


def test_a_task_without_result_is_shown_with_its_cause() -> None:
    assert not {"task", "no result"} & set(dict(rows(status(), None, 0.0)))
    shown = dict(rows(status(task_detail="reference of 9x9 px is seen whole"), None, 0.0))
    assert shown["task"] == "reference of 9x9 px is seen whole"
    shown = dict(rows(status(task_ok=False, task_detail="no reference: ..."), None, 0.0))
    assert shown["no result"] == "no reference: ..."


def test_what_was_not_measured_is_a_dash_and_silence_is_said() -> None:
    shown = dict(rows(status(rate=NAN, time_since_frame=NAN), thermal(level=0, sensors=[]), 12.0))
    assert shown["rate"] == "-"
    assert shown["last frame"] == "-"
    assert shown["state"] == "active (silent for 12 s)"
    assert shown["thermal"].startswith("UNKNOWN (sysfs)")


def test_what_the_policy_does_goes_before_the_reason() -> None:
    shown = dict(rows(status(), thermal(action="10 Hz, since it is warm"), 0.0))
    assert shown["thermal"].endswith("10 Hz, since it is warm")


def test_square_brackets_of_an_error_line_are_shown_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(table("/n", status(detail="refused [artifact_sha256]"), None, 0.0))
    assert "refused [artifact_sha256]" in console.file.getvalue()
