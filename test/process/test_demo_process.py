"""``gdi demo`` as users run it: the real node in its own process, over every kind of source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import hostile_images as hostile
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from node_process import textured_frames

SMALL = ("image_width=320", "image_height=256", "max_keypoints=300", "threads=1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One engine cache for the whole module: the first run builds, the others load."""
    return tmp_path_factory.mktemp("engines")


def demo_command(out: Path, cache: Path, *arguments: str, settings: tuple[str, ...]) -> list[str]:
    command = [sys.executable, "-m", "gps_denied_inference", "demo", "--out", str(out)]
    command += ["--runtime", "onnxruntime", "--device", "cpu", *arguments]
    for setting in (f"engine_cache_directory={cache}", *settings):
        command += ["--set", setting]
    return command


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}


def demo(
    out: Path, cache: Path, *arguments: str, settings: tuple[str, ...] = SMALL
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        demo_command(out, cache, *arguments, settings=settings),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment(),
    )


@contextmanager
def flying_demo(out: Path, cache: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A long demo whose frames are on their way, and the process id of its node."""
    command = demo_command(out, cache, "--frames", "2000", settings=SMALL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if line.strip() == "flying":
                    break
            assert process.poll() is None, seen
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            (node,) = [int(child) for child in children.split()]
            yield process, node
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def report_of(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def assert_all_answered(out: Path, done: subprocess.CompletedProcess[str], count: int) -> dict:
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_of(out)
    frames = report["frames"]
    assert frames["published"] == count
    assert frames["answered"] + frames["dropped"] == count
    assert frames["answered"] >= count - 1, frames
    assert report["runtime"]["name"] == "onnxruntime"
    assert report["runtime"]["provider"] == "CPUExecutionProvider"
    assert report["runtime"]["device"] == "cpu"
    assert len(report["model"]["sha256"]) == 64
    assert (
        0 < report["latency_ms"]["end_to_end"]["p50"] <= report["latency_ms"]["end_to_end"]["p95"]
    )
    assert report["latency_ms"]["infer"]["p50"] > 0
    assert report["failures"] == []
    for name in ("features.png", "matches.png"):
        assert cv2.imread(str(out / name)) is not None
    assert "<html" in (out / "report.html").read_text()
    return report


def test_simulated_flight(tmp_path: Path, cache: Path) -> None:
    done = demo(
        tmp_path / "out", cache, "--frames", "10", "--json", str(tmp_path / "copy.json"),
        settings=("threads=1",),
    )  # fmt: skip
    report = assert_all_answered(tmp_path / "out", done, 10)
    assert report["source"]["kind"] == "simulated flight"
    assert report["matches"]["held_against"] == "true motion"
    assert report["matches"]["pairs"] >= 7
    assert report["matches"]["agreeing_share"] >= 0.70
    assert json.loads((tmp_path / "copy.json").read_text()) == report


@pytest.mark.slow
def test_a_flight_over_the_map(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    done = demo(tmp_path, cache, "--frames", "16", "--localize", settings=("threads=1",))
    said = assert_all_answered(tmp_path, done, 16)["localization"]
    assert said["published"] == said["answered"] == 16
    assert said["fixes"] >= 4
    assert said["error_m_p50"] < 90.0
    assert said["followed_share"] > 0.9
    picture = cv2.imread(str(tmp_path / "localization.png"))
    assert picture is not None
    assert picture.std() > 30.0
    assert "fixes:" in done.stdout


def test_folder_of_uav_frames(tmp_path: Path, cache: Path, shared_data: Path) -> None:
    source = str(shared_data / "caliterra" / "images")
    done = demo(tmp_path, cache, "--source", source, "--frames", "6")
    report = assert_all_answered(tmp_path, done, 6)
    assert report["source"]["kind"] == "folder"
    assert report["matches"]["held_against"] == "best homography"


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_bag(tmp_path: Path, cache: Path, shared_data: Path, kind: str) -> None:
    source = str(shared_data / f"rosbag_brighton_{kind}")
    done = demo(tmp_path, cache, "--source", source, "--frames", "6")
    assert assert_all_answered(tmp_path, done, 6)["source"]["kind"] == "bag"


def test_video(tmp_path: Path, cache: Path, shared_data: Path) -> None:
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (800, 450))
    for file in sorted((shared_data / "brighton_beach" / "images").glob("*.jpg"))[:5]:
        writer.write(cv2.resize(cv2.imread(str(file)), (800, 450)))
    writer.release()
    done = demo(tmp_path / "out", cache, "--source", str(path))
    assert assert_all_answered(tmp_path / "out", done, 5)["source"]["kind"] == "video"


def test_one_good_image_of_a_folder(tmp_path: Path, cache: Path) -> None:
    """The torn one is counted, the good one is answered, and no pair is no "nan %"."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = next(textured_frames())
    cv2.imwrite(str(folder / "a.jpg"), pixels)
    (folder / "b.jpg").write_bytes(hostile.damaged((folder / "a.jpg").read_bytes()))
    done = demo(tmp_path / "out", cache, "--source", str(folder))
    assert done.returncode == 0, done.stderr
    frames = report_of(tmp_path / "out")["frames"]
    assert (frames["published"], frames["answered"], frames["unreadable"]) == (1, 1, 1)
    assert frames["unreadable_reasons"] == {"corrupt": 1}
    assert "b.jpg is left out (corrupt)" in done.stderr
    assert "matches: none, since no two successive frames were answered" in done.stdout
    assert "nan" not in done.stdout


def test_what_the_node_says_of_a_covered_lens_is_told_at_the_end(
    tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(60):
        cv2.imwrite(str(folder / f"{index:02}.png"), np.full((240, 320), 2, np.uint8))
    done = demo(tmp_path / "out", cache, "--source", str(folder))
    assert done.returncode == 0, done.stderr
    [finding] = report_of(tmp_path / "out")["findings"]
    assert "frames show fewer than 20 features: they are dark" in finding
    assert f"gdi: the task gave no result: {finding}" in done.stderr
    assert "frames show fewer than 20 features" in (tmp_path / "out" / "report.html").read_text()


def test_frames_faster_than_the_node_are_counted_as_dropped(tmp_path: Path, cache: Path) -> None:
    done = demo(
        tmp_path, cache, "--frames", "30", "--rate", "25",
        settings=("threads=1", "image_width=1280", "image_height=960"),
    )  # fmt: skip
    report = report_of(tmp_path)
    frames = report["frames"]
    assert frames["published"] == 30
    assert frames["dropped"] > 0, "a node that keeps up with this proves nothing"
    assert frames["drop_reasons"]["superseded"] == frames["dropped"]
    # On a busy machine the newest frame may replace one in DDS, before the node sees it: such a
    # frame is in nobody's count, and then the demo has to say so and fail.
    assert frames["unaccounted"] in range(4)
    says_so = any("neither answered" in line for line in report["failures"])
    assert says_so == (frames["unaccounted"] > 0)
    assert done.returncode == (1 if report["failures"] else 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--set", "max_keypoints=0"), "parameter 'max_keypoints' = 0 is refused"),
        (("--set", "model=no_such_model"), "unknown model 'no_such_model'"),
        (("--source", "no/such/folder"), "source no/such/folder does not exist"),
        (("--set", "max_keypoints"), "give NAME=VALUE"),
        (("--frames", "0"), "at least 1"),
        (("--localize", "--source", "flight"), "leave out --source"),
    ],
)
def test_what_cannot_run_says_so_in_one_line(
    tmp_path: Path, cache: Path, arguments: tuple[str, ...], line: str
) -> None:
    done = demo(tmp_path, cache, *arguments, settings=())
    assert done.returncode == 1
    assert line in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("gdi: error: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "report.json").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_interrupting_the_demo_leaves_no_node_behind(tmp_path: Path, cache: Path) -> None:
    with flying_demo(tmp_path, cache) as (process, node):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130, errors
        assert errors.splitlines()[-1] == "gdi: interrupted"
        end = time.monotonic() + 5
        while is_running(node) and time.monotonic() < end:
            time.sleep(0.05)
        assert not is_running(node)
    assert not (tmp_path / "report.json").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_node_that_dies_is_reported(tmp_path: Path, cache: Path) -> None:
    with flying_demo(tmp_path, cache) as (process, node):
        os.kill(node, signal.SIGKILL)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    line = errors.splitlines()[-1]
    assert line.startswith("gdi: error: the node's process ended by itself with exit code -9"), line
