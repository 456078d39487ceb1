"""From a camera's frames to an autopilot's positions: flight, localize, link, stand-in."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from arrivals import Arrived, ardupilot_positions, px4_positions
from flying_autopilot import say_attitude, say_height, say_position
from lifecycle_msgs.msg import Transition
from link_process import Client, flown
from localizing_process import HEIGHT, WIDTH, Heard, localizing, ns
from node_process import LONG_TESTS, NodeProcess
from stand_in_autopilot import ABSOLUTE, ARDUPILOT, GOOD_ESTIMATOR, StandInAutopilot
from test_link import eventually

from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.maps.frame import LocalFrame
from gps_denied_inference.msg import AutopilotLinkStatus, LocalizationStatus
from gps_denied_inference.pipeline.localization.plan import UNKNOWN_TILT

POSITIONS = 200 if LONG_TESTS else 25
LOST_AFTER = 2.0  # s
FRAME_PERIOD = 0.15
"""s; localization looks at 20 frames a second at most."""
FREE_FRAMES = 30
LEAST_ODOMETRY_RATE = 4.0
"""Hz, below which ArduPilot does not use it."""
LIMITS = {"max_speed": 1000.0, "max_fix_sigma": 2000.0, "max_fix_age": 5.0}
"""The flight makes 160 to 280 m from frame to frame, 5.5 km above ground."""
ALL_PRIORS = {
    "fix": "inference_node/fix",
    "odometry": "inference_node/odometry",
    "localization_status": "inference_node/localization_status",
}
ONLY_HEIGHT = {**ALL_PRIORS, "prior/fix": "unread/fix", "imu": "unread/imu"}
SAME_MOMENT = 30_000_000
"""ns between a frame's stamp and the same on the autopilot's clock; frames lie farther apart."""
GPS_SIGMA = 1.5
"""m."""


def outcome(status: AutopilotLinkStatus, name: str) -> int:
    """Return how many fixes ended so."""
    return int(dict(zip(status.outcomes, status.outcome_counts, strict=True)).get(name, 0))


def bring_up(node: NodeProcess, heard: Heard, link: NodeProcess, client: Client) -> None:
    assert heard.driver.configure(300.0), node.output
    assert heard.driver.activate()
    assert client.change(Transition.TRANSITION_CONFIGURE), link.output
    assert client.change(Transition.TRANSITION_ACTIVATE), link.output
    eventually(lambda: client.latest().yaw_aligned, "the autopilot's attitude", 10.0)
    eventually(lambda: bool(client.heard["prior/height"]), "the autopilot's height", 10.0)
    eventually(lambda: client.latest().time_uncertainty < 0.01, "a common clock", 10.0)


def wait_for_the_period(heard: Heard) -> None:
    since = (time.time_ns() - max(heard.stamps, default=0)) * 1e-9
    time.sleep(max(0.0, FRAME_PERIOD - since))


def ground_that_is_not_the_map() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH))
    return np.clip(128 + 3 * noise, 0, 255).astype(np.uint8)


def nearest_frame(heard: Heard, exposed_ns: int) -> int:
    """Return the stamp of the frame that was exposed then."""
    stamps = np.array(sorted(heard.stamps))
    stamp = int(stamps[np.argmin(np.abs(stamps - exposed_ns))])
    assert abs(stamp - exposed_ns) < SAME_MOMENT
    return stamp


def assert_true(heard: Heard, positions: list[Arrived], what: str) -> list[float]:
    """Hold positions against the flight; return their standard deviations."""
    frame, status = LocalFrame(*ORIGIN), {ns(s.header): s for s in heard.status}
    errors, apart, latencies = [], [], []
    for position in positions:
        stamp = nearest_frame(heard, position.exposed_ns)
        apart.append(abs(stamp - position.exposed_ns))
        assert status[stamp].state == LocalizationStatus.STATE_LOCALIZED
        assert status[stamp].fix_accepted
        place = complex(*frame.to_enu(position.latitude, position.longitude))
        errors.append(abs(place - truth(heard.flight, heard.stamps[stamp])))
        latencies.append((position.arrived_ns - stamp) * 1e-9)
    sigmas = [position.sigma for position in positions]
    inside = np.array(errors) < 3.0 * np.array(sigmas)
    assert len(inside) >= 20
    assert np.mean(inside) >= 0.99
    assert np.isfinite(latencies).all()
    assert min(latencies) > 0.0
    p50, p95 = np.percentile(latencies, (50, 95))
    print(
        f"{what}: {len(inside)} positions, {100 * np.mean(inside):.1f} % within 3 sigma; "
        f"error p50 {np.median(errors):.0f} m, sigma p50 {np.median(sigmas):.0f} m; "
        f"exposure to arrival p50 {p50:.3f} s, p95 {p95:.3f} s; "
        f"stamps within {max(apart) / 1e6:.2f} ms"
    )
    return sigmas


def assert_reported(client: Client, *processes: NodeProcess) -> None:
    said = client.latest()
    assert 0.0 < said.latency_p50 <= said.latency_p95 < 5.0
    for process in processes:
        assert "Traceback" not in process.output


@pytest.mark.slow
@pytest.mark.alone
def test_positions_that_arrive_are_the_flight_s_at_the_frames_times(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "link").mkdir()
    with (
        localizing(tmp_path / "node") as (node, heard),
        flown(tmp_path / "link", ONLY_HEIGHT, lost_after=LOST_AFTER, **LIMITS)
        as (link, client, autopilot),
    ):  # fmt: skip

        def step(**options: Any) -> LocalizationStatus:
            wait_for_the_period(heard)
            say_height(autopilot.said, heard.flight, heard.index)
            return heard.step(height=False, **options)

        say_height(autopilot.said, heard.flight, 0)
        bring_up(node, heard, link, client)

        blank = ground_that_is_not_the_map()
        for _ in range(3):  # nothing of the map is seen
            assert step(image=blank).state == LocalizationStatus.STATE_SEARCHING
        assert autopilot.got["GLOBAL_POSITION_SENSOR"] == []
        heard.index = 0
        for _ in range(2 * POSITIONS):
            step()
            if len(px4_positions(autopilot)) >= POSITIONS:
                break
        eventually(
            lambda: len(px4_positions(autopilot)) == outcome(client.latest(), "sent"),
            "what was sent", 10.0,
        )  # fmt: skip
        positions = px4_positions(autopilot)
        assert len(positions) >= POSITIONS, client.latest()

        # The ground is no longer seen.
        end = time.monotonic() + 30.0
        while client.latest().state != AutopilotLinkStatus.STATE_LOST:
            assert time.monotonic() < end, client.latest()
            assert not step(image=blank).fix_accepted
        for _ in range(3):
            assert not step(image=blank).fix_accepted
        messages = autopilot.wait_for("GLOBAL_POSITION_SENSOR", len(positions) + 1)
        assert len(px4_positions(autopilot)) == len(positions)
        assert all(m.flags and np.isnan(m.eph) for m in messages[len(positions) :])

        assert_true(heard, positions, "PX4, told of the height")
        assert_reported(client, node, link)


@pytest.mark.slow
@pytest.mark.alone
def test_ardupilot_s_own_word_is_heard_and_fixes_come_once_its_gps_is_lost(
    tmp_path: Path,
) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "link").mkdir()
    rng = np.random.default_rng(1)
    with (
        localizing(tmp_path / "node", infer_timeout=60.0) as (node, heard),
        flown(tmp_path / "link", ALL_PRIORS, send_odometry=True, lost_after=60.0, **LIMITS)
        as (link, client, autopilot),
    ):  # fmt: skip

        def fly(has_gps: bool) -> None:
            """Let the autopilot say what it knows at the next frame, and the link pass it on."""
            said = autopilot.said
            if has_gps:
                say_position(said, heard.flight, heard.index, rng, GPS_SIGMA)
            say_height(said, heard.flight, heard.index)
            say_attitude(said, heard.flight, heard.index, rng)
            since = time.time_ns()
            eventually(lambda: ns(client.heard["imu"][-1].header) > since, "its attitude")

        autopilot.said.autopilot = ARDUPILOT
        autopilot.said.gps_fix_type = 3
        autopilot.said.estimator_flags = GOOD_ESTIMATOR | ABSOLUTE
        say_position(autopilot.said, heard.flight, 0, rng, GPS_SIGMA)
        say_height(autopilot.said, heard.flight, 0)
        bring_up(node, heard, link, client)
        eventually(lambda: client.latest().gps_in_use, "GPS in use", 10.0)

        refused = 0
        for _ in range(20):
            wait_for_the_period(heard)
            fly(has_gps=True)
            status = heard.step(height=False)
            refused += status.fix_accepted
            if refused >= 3:
                break
        eventually(lambda: outcome(client.latest(), "gps_in_use") >= 3, "fixes refused", 10.0)
        assert ardupilot_positions(autopilot) == []
        assert autopilot.of("ODOMETRY") == []

        # It stays where it last was by GPS, and says no more how well it knows that.
        autopilot.said.gps_fix_type = 0
        autopilot.said.estimator_flags = GOOD_ESTIMATOR
        eventually(lambda: not client.latest().gps_in_use, "GPS is lost", 10.0)
        for _ in range(2 * POSITIONS):
            wait_for_the_period(heard)
            fly(has_gps=False)
            heard.step(height=False)
            if len(ardupilot_positions(autopilot)) >= POSITIONS:
                break
        eventually(
            lambda: len(ardupilot_positions(autopilot)) == outcome(client.latest(), "sent"),
            "what was sent", 10.0,
        )  # fmt: skip
        positions = ardupilot_positions(autopilot)
        assert len(positions) >= POSITIONS, client.latest()
        sigmas = assert_true(heard, positions, "ArduPilot, told of position, attitude and height")
        readers = heard.driver.node.get_subscriptions_info_by_topic("/prior/fix")
        assert "inference_node" in {reader.node_name for reader in readers}
        by_gps, lost = client.heard["prior/fix"][0], client.heard["prior/fix"][-1]
        assert by_gps.position_covariance[0] == pytest.approx(GPS_SIGMA**2)
        assert lost.position_covariance[0] > 1000.0**2
        # Without the attitude, the tilt that nobody knows would be the most of it.
        least = min(heard.flight.pose(index).height for index in range(heard.index))
        assert np.median(sigmas) < least * np.tan(UNKNOWN_TILT)

        # A camera waits for nothing, and neither do poses between fixes.
        free = time.time_ns()
        for _ in range(FREE_FRAMES):
            wait_for_the_period(heard)
            fly(has_gps=False)
            heard.publish(height=False)
        assert_odometry(heard, autopilot, nearest_frame(heard, positions[0].exposed_ns), free)
        assert_reported(client, node, link)


def assert_odometry(heard: Heard, autopilot: StandInAutopilot, first: int, free: int) -> None:
    """Hold ODOMETRY against the node's odometry and the flight.

    Args:
        first: stamp of the first frame that gave a position, after which every pose goes out.
        free: when the camera began to wait for nothing, ns.
    """
    boot_ns = time.time_ns() - autopilot.boot_ns

    def arrived() -> dict[int, Any]:
        messages = autopilot.of("ODOMETRY")
        return {nearest_frame(heard, m.time_usec * 1000 + boot_ns): m for m in messages}

    def published() -> set[int]:
        return {ns(o.header) for o in list(heard.odometry) if ns(o.header) > first}

    eventually(lambda: len(published()) >= POSITIONS, "poses", 10.0)
    eventually(lambda: published() <= set(arrived()), "all of them at the autopilot", 10.0)
    counters = {s.reset_counter % 256 for s in heard.status}
    inside = []
    for stamp, m in arrived().items():
        assert m.reset_counter in counters
        assert 1 <= m.quality <= 100
        sigma = math.sqrt(max(m.pose_covariance[0], m.pose_covariance[6]))
        off = abs(complex(m.y, m.x) - truth(heard.flight, heard.stamps[stamp]))
        inside.append(off < 3.0 * sigma)
    waiting = np.diff([stamp for stamp in sorted(arrived()) if stamp > free])
    rate = 1e9 / float(np.median(waiting)) if len(waiting) else 0.0
    print(
        f"{len(inside)} poses, {100 * np.mean(inside):.1f} % within 3 sigma; "
        f"{len(waiting)} of {FREE_FRAMES - 1} of the camera's frames after another, {rate:.1f} Hz"
    )
    assert np.mean(inside) >= 0.95
    if LONG_TESTS:  # a machine that others share may not keep up with the camera
        assert rate >= LEAST_ODOMETRY_RATE
