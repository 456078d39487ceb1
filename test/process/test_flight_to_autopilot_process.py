"""From a camera's frames to an autopilot's positions: flight, localize, link, stand-in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from lifecycle_msgs.msg import Transition
from link_process import flown
from localizing_process import HEIGHT, WIDTH, localizing, ns
from node_process import LONG_TESTS
from test_link import eventually

from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.msg import AutopilotLinkStatus, LocalizationStatus

POSITIONS = 200 if LONG_TESTS else 25
LOST_AFTER = 2.0  # s
FRAME_PERIOD = 0.15
"""s; localization looks at 20 frames a second at most."""
WIRING = {
    "fix": "inference_node/fix",
    "odometry": "inference_node/odometry",
    "localization_status": "inference_node/localization_status",
    # The stand-in flies nothing: of what it says only the height is this flight's.
    "prior/fix": "stand_in/fix",
    "imu": "stand_in/imu",
}
SAME_MOMENT = 30_000_000
"""ns between a frame's stamp and the same on the autopilot's clock; frames lie farther apart."""


def sent(status: AutopilotLinkStatus) -> int:
    """Return how many fixes went out."""
    return int(dict(zip(status.outcomes, status.outcome_counts, strict=True)).get("sent", 0))


@pytest.mark.slow
@pytest.mark.alone
def test_positions_that_arrive_are_the_flight_s_at_the_frames_times(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "link").mkdir()
    # The flight makes 160 to 280 m from frame to frame, 5.5 km above ground.
    limits = {"max_speed": 1000.0, "max_fix_sigma": 2000.0, "max_fix_age": 5.0}
    with (
        localizing(tmp_path / "node") as (node, heard),
        flown(tmp_path / "link", WIRING, lost_after=LOST_AFTER, **limits)
        as (link, client, autopilot),
    ):  # fmt: skip

        def got() -> list[tuple[float, Any]]:
            return [(at, m) for at, m in list(autopilot.got["GLOBAL_POSITION_SENSOR"])
                    if not m.flags]  # fmt: skip

        def step(**options: Any) -> LocalizationStatus:
            since = (time.time_ns() - max(heard.stamps, default=0)) * 1e-9
            time.sleep(max(0.0, FRAME_PERIOD - since))
            autopilot.said.height = 1.04 * heard.flight.pose(heard.index).height
            return heard.step(height=False, **options)

        autopilot.said.height = 1.04 * heard.flight.pose(0).height
        assert heard.driver.configure(300.0), node.output
        assert heard.driver.activate()
        assert client.change(Transition.TRANSITION_CONFIGURE), link.output
        assert client.change(Transition.TRANSITION_ACTIVATE), link.output
        eventually(lambda: client.latest().yaw_aligned, "the autopilot's attitude", 10.0)
        eventually(lambda: bool(client.heard["prior/height"]), "the autopilot's height", 10.0)
        eventually(lambda: client.latest().time_uncertainty < 0.01, "a common clock", 10.0)

        rng = np.random.default_rng(0)
        blank = np.clip(128 + 3 * rng.normal(size=(HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
        for _ in range(3):  # nothing of the map is seen
            assert step(image=blank).state == LocalizationStatus.STATE_SEARCHING
        assert autopilot.got["GLOBAL_POSITION_SENSOR"] == []
        heard.index = 0
        for _ in range(2 * POSITIONS):
            step()
            if len(got()) >= POSITIONS:
                break
        eventually(lambda: len(got()) == sent(client.latest()), "what was sent", 10.0)
        assert len(got()) >= POSITIONS, client.latest()

        # The ground is no longer seen.
        before = len(got())
        end = time.monotonic() + 30.0
        while client.latest().state != AutopilotLinkStatus.STATE_LOST:
            assert time.monotonic() < end, client.latest()
            assert not step(image=blank).fix_accepted
        for _ in range(3):
            assert not step(image=blank).fix_accepted
        notices = autopilot.wait_for("GLOBAL_POSITION_SENSOR", before + 1)
        assert len(got()) == before
        assert all(m.flags and np.isnan(m.eph) for m in notices[before:])

        frame, boot = LocalFrame(*ORIGIN), time.time_ns() - autopilot.boot_ns
        status = {ns(s.header): s for s in heard.status}
        stamps = np.array(sorted(heard.stamps))
        errors, sigmas, apart, latencies = [], [], [], []
        for arrived, m in got():
            exposed = (m.time_usec - m.processing_time) * 1000 + boot
            stamp = int(stamps[np.argmin(np.abs(stamps - exposed))])
            apart.append(abs(stamp - exposed))
            assert status[stamp].state == LocalizationStatus.STATE_LOCALIZED
            assert status[stamp].fix_accepted
            place = complex(*frame.to_enu(m.lat * 1e-7, m.lon * 1e-7))
            errors.append(abs(place - truth(heard.flight, heard.stamps[stamp])))
            sigmas.append(m.eph)
            now_ns = time.time_ns() - round((time.monotonic() - arrived) * 1e9)
            latencies.append((now_ns - stamp) * 1e-9)
        inside = np.array(errors) < 3.0 * np.array(sigmas)
        assert max(apart) < SAME_MOMENT
        assert len(inside) >= 20
        assert np.mean(inside) >= 0.99
        assert np.isfinite(latencies).all()
        assert min(latencies) > 0.0
        p50, p95 = np.percentile(latencies, (50, 95))
        print(
            f"{len(inside)} positions, {100 * np.mean(inside):.1f} % within 3 sigma; "
            f"error p50 {np.median(errors):.0f} m, sigma p50 {np.median(sigmas):.0f} m; "
            f"exposure to arrival p50 {p50:.3f} s, p95 {p95:.3f} s; "
            f"stamps within {max(apart) / 1e6:.2f} ms"
        )
        said = client.latest()
        assert 0.0 < said.latency_p50 <= said.latency_p95 < 5.0
        for process in (node, link):
            assert "Traceback" not in process.output
