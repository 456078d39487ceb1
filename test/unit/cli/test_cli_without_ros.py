"""Commands on a machine without ROS: those that need it say so, those that do not just work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

BLOCKED = ("rclpy", "sensor_msgs", "std_msgs", "lifecycle_msgs", "gps_denied_inference.msg")
CODE = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
from gps_denied_inference.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def gdi(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "remedy"), [("demo", "run 'make demo'"), ("top", "source a ROS 2 installation")]
)
def test_what_needs_ros_says_so(tmp_path: Path, command: str, remedy: str) -> None:
    arguments = ["--out", str(tmp_path / "out")] if command == "demo" else []
    done = gdi(command, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("gdi: error: ")
    assert "ROS 2 or the built package is missing" in line
    assert remedy in line
    assert not (tmp_path / "out").exists()


def test_replay_needs_none(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    kind = "sensor_msgs/msg/CompressedImage"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/cam", kind, typestore=store)
        pixels = np.random.default_rng(0).integers(0, 255, (96, 128), np.uint8)
        stamp = store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=0)
        message = store.types[kind](
            header=store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="cam"),
            format="png",
            data=cv2.imencode(".png", pixels)[1].reshape(-1),
        )
        writer.write(connection, 1, store.serialize_cdr(message, kind))
    settings = ("runtime=fake", "image_width=128", "image_height=96")
    flags = [word for setting in settings for word in ("--set", setting)]
    flags += ["--set", f"engine_cache_directory={tmp_path / 'engines'}"]
    done = gdi("replay", str(tmp_path / "bag"), "--out", str(tmp_path / "out"), *flags)
    assert done.returncode == 0, done.stderr
    assert "1 answered" in done.stdout
    assert list((tmp_path / "out").glob("*.mcap"))
