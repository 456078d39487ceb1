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
        "latency_p99": [0.05], "cameras": [camera()],
    }  # fmt: skip
    return fields | changes


def camera(**changes):
    fields = {
        "name": "", "frames_in": 20, "frames_out": 16, "frames_dropped": 3,
        "drop_reasons": ["superseded", "malformed"], "drop_counts": [2, 1], "rate": 19.96,
        "time_since_frame": 0.04, "stamps_zero": 0, "stamps_repeated": 0, "stamps_backward": 0,
        "stamp_gaps": 0, "frames_missing": 0, "stamp_period": 0.04, "stamp_jitter": 0.0003,
        "brightness": 0.41, "dark_share": 0.03, "bright_share": 0.0, "blur": 0.22,
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


def test_stamps_and_images_of_the_camera() -> None:
    shown = dict(rows(status(), None, 0.0))
    assert shown["stamps"] == "every 40.0 ms, jitter 0.3 ms"
    assert shown["images"] == "brightness 0.41, 3% dark, 0% bright, blur 0.22"
    faulty = camera(stamps_repeated=4, stamp_gaps=2, frames_missing=7, blur=NAN)
    shown = dict(rows(status(cameras=[faulty]), None, 0.0))
    assert shown["stamps"].endswith(", 4 repeated, 2 gaps of 7 frames in all")
    assert shown["images"].endswith("blur -")
    unstamped = camera(stamps_zero=9, stamp_period=NAN, stamp_jitter=NAN, brightness=NAN)
    shown = dict(rows(status(cameras=[unstamped]), None, 0.0))
    assert shown["stamps"] == "9 zero"
    assert "images" not in shown


def test_several_cameras_are_counted_each() -> None:
    lines = rows(
        status(cameras=[camera(name="left"), camera(name="right", frames_in=9)]), None, 0.0
    )
    shown = dict(lines)
    assert shown["left"] == "20 in, 16 out, 3 dropped, 20.0 Hz"
    assert shown["right"].startswith("9 in, ")
    assert shown["right images"].startswith("brightness 0.41")
