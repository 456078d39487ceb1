"""Task localize as a process: frames and priors in over DDS, positions out."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")

from localizing_process import HEIGHT, PARAMETERS, WIDTH, localizing, ns
from node_process import driven
from rclpy.duration import Duration
from sensor_msgs.msg import NavSatFix
from simulated_map import scene_map

from gps_denied_inference.demo.scene import GROUND_SAMPLE
from gps_denied_inference.demo.scene_map import KEYPOINTS, ORIGIN, truth
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.msg import LocalizationStatus


@pytest.mark.slow
@pytest.mark.alone
def test_a_flight_is_found_and_followed_without_any_position_prior(tmp_path: Path) -> None:
    with localizing(tmp_path) as (process, heard):
        driver = heard.driver
        assert driver.configure(300.0), process.output
        assert driver.activate()
        heard.most_ns = 500_000_000  # tracks do not outlive a second, as long as a search may take
        states = [heard.step().state for _ in range(15)]
        assert LocalizationStatus.STATE_LOCALIZED in states[:5]
        located = states.index(LocalizationStatus.STATE_LOCALIZED)
        assert set(states[located:]) == {LocalizationStatus.STATE_LOCALIZED}
        driver.wait_until(lambda: len(heard.fixes) >= 10, "ten fixes")
        driver.wait_until(lambda: len(heard.odometry) >= 10, "odometry")
        # The camera hangs up to 4 degrees off the vertical, which the node is not told.
        off = heard.errors()
        assert max(off) < 5_500.0 * math.tan(math.radians(5.0))
        inside = 0
        for fix, error in zip(heard.fixes, off, strict=True):
            covariance = np.array(fix.position_covariance).reshape(3, 3)
            assert np.isfinite(covariance).all()
            assert (np.linalg.eigvalsh(covariance) > 0.0).all()
            inside += error < 3.0 * math.sqrt(np.linalg.eigvalsh(covariance[:2, :2])[-1])
        assert inside == len(off)
        assert all(ns(fix.header) in heard.stamps for fix in heard.fixes)
        assert all(fix.header.frame_id == "camera" for fix in heard.fixes)
        info = MapStore(scene_map()).info
        for pose, fix in zip(heard.poses, heard.fixes, strict=False):
            assert pose.header.frame_id == "map"
            east, north = info.to_enu(fix.latitude, fix.longitude)
            assert pose.pose.pose.position.x == pytest.approx(east, abs=0.01)
            assert pose.pose.pose.position.y == pytest.approx(north, abs=0.01)
            index = heard.stamps[ns(pose.header)]
            assert pose.pose.pose.position.z == pytest.approx(
                heard.flight.pose(index).height, rel=0.1
            )
            turn = pose.pose.pose.orientation
            yaw = 2.0 * math.atan2(turn.z, turn.w)
            heading = heard.flight.pose(index).heading
            assert math.cos(0.5 * math.pi - heading - yaw) > math.cos(math.radians(4.0))
        assert all(o.child_frame_id == "base_link" for o in heard.odometry)
        last = heard.status[-1]
        assert last.fix_accepted
        assert last.inliers > 20
        assert 0 < last.confidence <= 1
        assert last.map_sha256 == MapStore(scene_map()).sha256
        assert last.reset_counter == 0
        assert 0.0 < last.processing_time < 30.0
        assert driver.deactivate()
        assert driver.cleanup()
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0, process.output
        assert "Traceback" not in process.output


def run_time(pid: int, thread: int) -> float:
    """Return the s that a thread has been on a processor."""
    return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) * 1e-9


HOG = "import os\nos.sched_setaffinity(0, {int(os.environ['ONE'])})\nwhile True: pass"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux's scheduler")
@pytest.mark.parametrize("priority", ["idle", "low"])
def test_a_search_takes_what_its_priority_says(tmp_path: Path, priority: str) -> None:
    """One processor, which other programs want as well: an idle search waits, a low one goes on."""
    one = min(os.sched_getaffinity(0))
    with localizing(tmp_path, localization_priority=priority) as (process, heard):
        driver, pid = heard.driver, process.process.pid
        assert driver.configure(300.0), process.output
        assert driver.activate()
        heard.step()
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        idle = [t for t in threads if os.sched_getscheduler(t) == os.SCHED_IDLE]
        nice = [t for t in threads if os.getpriority(os.PRIO_PROCESS, t) == 10]
        assert len(nice) == 1
        assert idle == (nice if priority == "idle" else [])
        for thread in threads:
            os.sched_setaffinity(thread, {one})
        hogs = [
            subprocess.Popen([sys.executable, "-c", HOG], env={**os.environ, "ONE": str(one)})
            for _ in range(2)
        ]
        try:
            answered, searched = len(driver.features), len(heard.status)
            begin, ran = time.monotonic(), run_time(pid, nice[0])
            while time.monotonic() < begin + 4.0:
                heard.publish()
                time.sleep(0.2)
            share = (run_time(pid, nice[0]) - ran) / (time.monotonic() - begin)
            print(f"{priority}: {share:.4f} of the processor")
            assert share < 0.005 if priority == "idle" else share > 0.01
            assert len(driver.features) > answered + 2
            if priority == "idle":
                # Nobody waits for a search that gets no processor, and nothing is said of it.
                begin = time.monotonic()
                assert driver.deactivate(), process.output
                assert driver.activate(), process.output
                assert driver.deactivate(), process.output
                assert driver.cleanup(), process.output
                assert time.monotonic() - begin < 10.0
                assert len(heard.status) == searched
                assert driver.configure(300.0), process.output
                assert driver.activate(), process.output
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        heard.step()
        if priority == "low":
            assert "s for a processor: other programs leave it none" in process.output
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0, process.output


@pytest.mark.slow
@pytest.mark.alone
def test_priors_that_are_wrong_missing_late_or_stop_do_not_mislead(tmp_path: Path) -> None:
    with localizing(tmp_path) as (process, heard):
        driver = heard.driver
        assert driver.configure(300.0), process.output
        assert driver.activate()
        frame, north = LocalFrame(*ORIGIN), 15_000.0  # 10 km beside the truth, said to be sure

        def mislead(**changes: Any) -> None:
            place = truth(heard.flight, heard.index)
            latitude, longitude = frame.to_geodetic(place.real, place.imag + north)
            message = NavSatFix(latitude=latitude, longitude=longitude)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            message.position_covariance = [1e4, 0.0, 0.0, 0.0, 1e4, 0.0, 0.0, 0.0, 1.0]
            message.position_covariance_type = NavSatFix.COVARIANCE_TYPE_KNOWN
            for name, value in changes.items():
                setattr(message, name, value)
            heard.prior.publish(message)
            assert heard.prior.wait_for_all_acked(Duration(seconds=5))  # before the frame is sent

        def heeded() -> bool:  # what is refused is said, and what came before it was taken
            mislead()
            mislead(latitude=math.nan)
            return "a prior is left out" in process.output

        driver.wait_until(heeded, "a prior to be left out", 10.0)
        for _ in range(4):  # a lying prior hides the right tiles: no fix, and never a wrong one
            mislead()
            assert heard.step().state == LocalizationStatus.STATE_SEARCHING
        assert heard.fixes == []
        mislead(latitude=math.nan)
        mislead(position_covariance=[0.0] * 9)
        mislead(position_covariance_type=NavSatFix.COVARIANCE_TYPE_UNKNOWN)
        time.sleep(1.2)  # longer than prior_timeout: what was said before is too old
        states = [heard.step().state for _ in range(8)]
        assert states[-1] == LocalizationStatus.STATE_LOCALIZED, heard.status[-1]
        # The height stops, then the ground: the flight is lost, and found again.
        assert heard.step(height=False).state == LocalizationStatus.STATE_LOCALIZED
        rng = np.random.default_rng(0)
        grey = [np.clip(128 + 3 * rng.normal(size=(HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
                for _ in range(40)]  # fmt: skip
        state, count = LocalizationStatus.STATE_LOCALIZED, len(heard.fixes)
        for image in grey:
            heard.index -= 1
            heard.ahead += 30.0  # what is not seen to move may have flown far
            state = heard.step(image=image).state
            if state != LocalizationStatus.STATE_LOCALIZED:
                break
        assert state == LocalizationStatus.STATE_LOST
        assert len(heard.fixes) == count
        states = [heard.step().state for _ in range(10)]
        assert states[-1] == LocalizationStatus.STATE_LOCALIZED
        assert heard.status[-1].reset_counter >= 1
        assert max(heard.errors()) < 20 * GROUND_SAMPLE
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0, process.output


@pytest.mark.slow
@pytest.mark.alone
def test_a_clock_that_is_set_ahead_and_back_costs_the_position_for_seconds(tmp_path: Path) -> None:
    with localizing(tmp_path) as (process, heard):
        driver = heard.driver
        assert driver.configure(300.0), process.output
        assert driver.activate()
        states = [heard.step().state for _ in range(8)]
        assert states[-1] == LocalizationStatus.STATE_LOCALIZED
        heard.ahead = 3600.0
        for _ in range(3):
            heard.step()
        heard.ahead, resets, fixes = 0.0, heard.status[-1].reset_counter, len(heard.fixes)
        states = [heard.step().state for _ in range(8)]
        assert "the stamps of the frames went back" in process.output
        assert states[-1] == LocalizationStatus.STATE_LOCALIZED, heard.status[-1]
        assert len(heard.fixes) > fixes
        assert heard.status[-1].reset_counter >= resets
        odometry = len(heard.odometry)
        heard.step()
        driver.wait_until(lambda: len(heard.odometry) > odometry, "odometry")
        assert max(heard.errors()) < 20 * GROUND_SAMPLE
        assert driver.shutdown()
        assert process.wait_for_exit(10) == 0, process.output


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"map_file": ""}, ("map_file",)),
        ({"map_file": "/no/such.map"}, ("no map at /no/such.map", "gdi map prepare")),
        ({"color": "rgb"}, ("made with model 'xfeat' and color 'mono'",)),
        ({"model": "aliked-t16"}, ("made with model 'xfeat'",)),
    ],
)
def test_a_map_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, parameters: dict[str, Any], words: tuple[str, ...]
) -> None:
    values = {**PARAMETERS, "map_file": str(scene_map()), **parameters}
    with driven(tmp_path, parameters=values) as (process, driver):
        assert not driver.configure(120.0)
        detail = driver.latest_status().detail
        assert detail.startswith("configure failed: ")
        assert all(word in detail for word in words), detail
        assert "Traceback" not in process.output
        assert KEYPOINTS  # the map's own K runs, whatever max_keypoints says
