"""The real command, killed at any moment: it goes on to the same map, and leaves no process."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rasterio", reason="rasterio is not installed")

import rasters

from gps_denied_inference.maps.store import MapStore

ROOT = Path(__file__).resolve().parents[3]
KILLS = 100 if os.environ.get("GDI_LONG_TESTS") == "1" else 5
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("killed")
    raster = rasters.geotiff(folder / "map.tif", "EPSG:32632")
    return [
        sys.executable, "-m", "gps_denied_inference.cli.main", "map", "prepare", str(raster),
        "--gsd", "0.35", "0.7", "--tile", "128", "--keypoints", "100", "--device", "cpu",
        "--runtime", "onnxruntime", "--engine-cache-directory", str(folder / "engines"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Content of the map that nobody interrupts, and how long it takes, s."""
    path = tmp_path_factory.mktemp("whole") / "out.map"
    began = time.monotonic()
    subprocess.run([*command, "-o", str(path)], env=environment("whole"), check=True)
    return MapStore(path).sha256, time.monotonic() - began


def environment(mark: str) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return os.environ | {"PYTHONPATH": path, "GDI_TEST_MARK": mark}


def processes(mark: str) -> list[int]:
    """Return the processes that carry a mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if f"GDI_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_until_gone(mark: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while left := processes(mark):
        if time.monotonic() > deadline:
            for process in left:
                os.kill(process, signal.SIGKILL)
            pytest.fail(f"processes {left} outlive the killed command")
        time.sleep(0.02)


def tiles_of(path: Path) -> int:
    """Return how many tiles a map has that may not be there yet."""
    try:
        base = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            return int(base.execute("SELECT COUNT(*) FROM tiles").fetchone()[0])
        finally:
            base.close()
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_command_killed_at_random_goes_on_to_the_same_map(
    jobs: int, command: list[str], whole: tuple[str, float], tmp_path: Path
) -> None:
    digest, seconds = whole
    rng, path = random.Random(jobs), tmp_path / "out.map"
    mark = f"{tmp_path.name}-{os.getpid()}"
    arguments = [*command, "-o", str(path), "--jobs", str(jobs)]
    killed = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            arguments, env=environment(mark), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(rng.uniform(0.0, 1.2 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
        wait_until_gone(mark)
    assert killed > 0
    subprocess.run(arguments, env=environment(mark), check=True)
    store = MapStore(path)
    assert store.sha256 == digest
    assert len(list(store.verify())) == store.tile_count > 20
    wait_until_gone(mark)


def test_workers_end_with_the_command_in_the_middle_of_their_work(
    command: list[str], tmp_path: Path
) -> None:
    mark = f"{tmp_path.name}-{os.getpid()}"
    arguments = [*command, "-o", str(tmp_path / "out.map"), "--jobs", "2"]
    with subprocess.Popen(
        arguments, env=environment(mark), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + LIMIT_S
        while tiles_of(tmp_path / "out.map") == 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    wait_until_gone(mark)
