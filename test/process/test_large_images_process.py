"""Large images over real DDS: with the shipped Fast DDS profile, and what is seen without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from camera_process import CameraProcess
from diagnostic_msgs.msg import DiagnosticStatus
from node_process import ACTIVE, LONG_TESTS, ROOT, driven

from gps_denied_inference.node.diagnostics import LOSS_SHARE
from gps_denied_inference.pipeline.accounting import LOST, SUPERSEDED

PROFILE = str(ROOT / "config" / "fastdds_large_images.xml")
WITH_PROFILE = {
    "FASTRTPS_DEFAULT_PROFILES_FILE": PROFILE,
    "FASTDDS_DEFAULT_PROFILES_FILE": PROFILE,
}
# A cheap engine: what is tested is the way of the frames, not the network.
CHEAP = {"runtime": "fake", "image_width": 320, "image_height": 256, "max_keypoints": 100}
SECONDS = 60 if LONG_TESTS else 5
RATE = 30.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(
        os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp",
        reason="the profile is one of Fast DDS, and RMW_IMPLEMENTATION names another",
    ),
]


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


def assert_named(heard: list[DiagnosticStatus]) -> None:
    """Diagnostics have told of a loss, and of the file that helps."""
    bad = [s for s in heard if s.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)]
    assert any("fastdds_large_images.xml" in s.message for s in bad), [s.message for s in heard]


@pytest.mark.parametrize(
    ("width", "height", "encoding"), [(1280, 720, "bgr8"), (1920, 1080, "bgr8")]
)
def test_with_the_profile_every_frame_is_answered_or_counted(
    tmp_path: Path,
    width: int,
    height: int,
    encoding: str,
    record_property: Callable[[str, object], None],
) -> None:
    """sent == answered + superseded + lost, where what is lost is counted and named."""
    frames = round(SECONDS * RATE)
    with driven(tmp_path, parameters=CHEAP, environment=WITH_PROFILE) as (process, driver):
        heard = driver.frames_diagnostics()
        assert driver.configure(), process.output
        with CameraProcess(
            tmp_path,
            rate=RATE,
            frames=frames,
            width=width,
            height=height,
            encoding=encoding,
            environment=WITH_PROFILE,
        ) as camera:
            assert driver.activate()
            sent = camera.result(SECONDS * 2 + 60)["sent"]
            assert sent == frames
        status = driver.wait_for_accounts(sent)
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        answered = len(driver.features)
        superseded, lost = drops.get(SUPERSEDED, 0), drops.get(LOST, 0)
        record_property("lost", lost)
        print(
            f"{width}x{height} {encoding}: {sent} sent, {answered} answered, "
            f"{superseded} superseded, {lost} lost"
        )
        assert set(drops) <= {SUPERSEDED, LOST}
        assert sent == answered + superseded + lost
        # What is lost is lost where somebody looks: in the counts of /diagnostics from the first
        # frame on, as a warning with the remedy where it is more than a few, and in the log.
        driver.wait_until(
            lambda: heard and values(heard[-1]).get("frames_in") == str(sent),
            "diagnostics of the last frame",
        )
        assert values(heard[-1]).get(f"dropped_{LOST}", "0") == str(lost)
        if lost:
            assert "lost on the way" in process.output
        if lost > LOSS_SHARE * sent:
            assert_named(heard)
        # The segment holds five such frames: none is lost while the receiver gets its share of the
        # processor, and without the profile nine in ten are (see below).
        assert lost < 0.5 * sent
        stamps = [(a.header.stamp.sec, a.header.stamp.nanosec) for a in driver.features]
        assert stamps == sorted(set(stamps)), "an answer came twice or out of order"
        assert driver.state() == ACTIVE


def test_without_the_profile_the_loss_is_named(tmp_path: Path) -> None:
    """The defaults lose 1080p frames: either some arrive and the gaps are counted, or none does."""
    without = {name: "" for name in WITH_PROFILE}
    frames = round(8 * RATE)
    with driven(tmp_path, parameters=CHEAP, environment=without) as (process, driver):
        seen = driver.frames_diagnostics()
        assert driver.configure(), process.output
        with CameraProcess(
            tmp_path,
            rate=RATE,
            frames=frames,
            width=1920,
            height=1080,
            encoding="bgr8",
            environment=without,
        ) as camera:
            assert driver.activate()
            sent = camera.result(90)["sent"]
        count = len(driver.statuses)
        driver.wait_until(lambda: len(driver.statuses) > count + 1, "the status after the flight")
        status = driver.latest_status()
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        lost = drops.get(LOST, 0)
        unseen = sent - status.frames_in  # lost after the last one that arrived
        print(f"{sent} sent, {status.frames_out} answered, {drops}, {unseen} never heard of")
        if lost + unseen <= 0.05 * sent:
            pytest.skip(f"the defaults lost only {lost + unseen} of {sent} frames in this run")
        assert_named(seen)
        if lost:
            assert "lost on the way" in process.output
