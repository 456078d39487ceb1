"""The link over real UDP on loopback, against a stand-in autopilot that can misbehave."""

from __future__ import annotations

import dataclasses
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from stand_in_autopilot import ABSOLUTE, ARDUPILOT, GOOD_ESTIMATOR, Faults, StandInAutopilot

from gps_denied_inference.autopilot.connection import Connection
from gps_denied_inference.autopilot.fix import Fix
from gps_denied_inference.autopilot.link import AutopilotLink
from gps_denied_inference.autopilot.outgoing import Odometry
from gps_denied_inference.autopilot.policy import LinkState, PolicyLimits
from gps_denied_inference.errors import ConfigurationError

COVARIANCE = (4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 9.0)
LIMITS = PolicyLimits(max_rate=1000.0, lost_after=0.6, link_timeout=1.0)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fix(**changes: object) -> Fix:
    made = Fix(time.time_ns() - 50_000_000, 47.0, 8.0, 560.0, COVARIANCE)
    return dataclasses.replace(made, **changes)


def eventually(fact: Callable[[], bool], what: str, limit: float = 5.0) -> None:
    end = time.monotonic() + limit
    while not fact():
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.01)


@contextmanager
def linked(
    limits: PolicyLimits = LIMITS, **options: object
) -> Iterator[tuple[AutopilotLink, StandInAutopilot]]:
    port = free_port()
    connection = Connection(f"udpin:127.0.0.1:{port}")
    link = AutopilotLink(connection, limits, **options)  # type: ignore[arg-type]
    failures: list[BaseException] = []

    def run() -> None:
        try:
            link.run()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    with StandInAutopilot(port) as autopilot:
        thread.start()
        link.start()
        try:
            yield link, autopilot
        finally:
            link.end()
            thread.join(5.0)
            connection.close()
    assert failures == []


def wait_until_ready(link: AutopilotLink) -> None:
    eventually(lambda: link.snapshot().autopilot.yaw_aligned, "an estimator with an attitude")
    eventually(lambda: link.snapshot().autopilot.kind != "", "a heartbeat")
    eventually(lambda: math.isfinite(link.snapshot().time_uncertainty), "a clock")


def test_px4_gets_every_field_as_it_was_meant():
    with linked(source_id=7) as (link, autopilot):
        wait_until_ready(link)
        sent = fix()
        before = autopilot.boot_ns
        assert link.offer_fix(sent).send
        got = autopilot.wait_for("GLOBAL_POSITION_SENSOR")[0]
        assert (got.lat, got.lon) == (470_000_000, 80_000_000)
        assert (got.id, got.source, got.flags) == (7, 2, 0)
        assert (got.target_system, got.target_component) == (1, 1)
        assert (got.eph, got.epv) == (2.0, 3.0)
        assert got.alt_ellipsoid == 560.0
        assert math.isnan(got.alt)
        assert got.processing_time == pytest.approx(50_000, abs=20_000)
        assert got.time_usec == pytest.approx(before / 1000, abs=20_000)
        assert (got.get_srcSystem(), got.get_srcComponent()) == (1, 197)


def test_heights_above_sea_level_are_lower_by_the_geoid():
    class Flat:
        def undulation(self, latitude: float, longitude: float) -> float:
            return 47.5

    with linked(geoid=Flat()) as (link, autopilot):
        wait_until_ready(link)
        link.offer_fix(fix())
        assert autopilot.wait_for("GLOBAL_POSITION_SENSOR")[0].alt == pytest.approx(512.5)


def test_ardupilot_gets_a_command_with_finite_accuracy_and_only_without_gps():
    with linked() as (link, autopilot):
        autopilot.said.autopilot = ARDUPILOT
        wait_until_ready(link)
        eventually(lambda: link.snapshot().autopilot.kind == "ardupilot", "ArduPilot")
        assert link.offer_fix(fix()).send
        got = autopilot.wait_for("COMMAND_INT")[0]
        assert (got.command, got.frame) == (43003, 0)
        assert (got.x, got.y) == (470_000_000, 80_000_000)
        assert 0.0 <= got.param1 <= 1000.0
        assert got.param2 == pytest.approx(0.05, abs=0.02)
        assert got.param3 == 2.0
        assert math.isnan(got.z)
        autopilot.said.estimator_flags = GOOD_ESTIMATOR | ABSOLUTE
        autopilot.said.gps_fix_type = 3
        eventually(lambda: link.snapshot().autopilot.gps_in_use, "GPS in use")
        assert link.offer_fix(fix()).reason == "gps_in_use"


def test_odometry_comes_in_frd_with_its_quality():
    with linked() as (link, autopilot):
        wait_until_ready(link)
        east = Odometry(
            time.time_ns(), (10.0, 20.0, 30.0), (0.0, 0.0, 0.0, 1.0), (1.0, 2.0, 3.0),
            (0.1, 0.2, 0.3), np.diag([1.0, 2, 3, 4, 5, 6]).ravel().tolist(),
            np.diag([1.0, 2, 3, 4, 5, 6]).ravel().tolist(), reset_counter=257, quality=0.5,
        )  # fmt: skip
        assert not link.offer_odometry(east)  # nothing before a first fix
        link.offer_fix(fix())
        assert link.offer_odometry(east)
        got = autopilot.wait_for("ODOMETRY")[0]
        assert (got.frame_id, got.child_frame_id, got.estimator_type) == (20, 12, 3)
        assert (got.x, got.y, got.z) == (20.0, 10.0, -30.0)
        assert (got.vx, got.vy, got.vz) == (1.0, -2.0, -3.0)
        assert np.allclose(got.q, (math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)), atol=1e-6)
        assert (got.pose_covariance[0], got.pose_covariance[6]) == (2.0, 1.0)
        assert (got.reset_counter, got.quality) == (1, 50)
        assert not link.offer_odometry(dataclasses.replace(east, position=(math.nan, 0.0, 0.0)))
        assert link.snapshot().odometry_refused == 2


def test_what_the_autopilot_says_is_kept_in_ros_frames():
    with linked() as (link, autopilot):
        stamps: list[int] = []
        link.on_state = lambda kind, state, stamp: stamps.append(stamp) if stamp else None
        autopilot.said.quaternion = (1.0, 0.0, 0.0, 0.0)  # facing north, level
        wait_until_ready(link)
        state = link.snapshot().autopilot
        assert state.latitude == pytest.approx(47.0)
        assert state.altitude_amsl == pytest.approx(500.0)
        assert state.height_above_home == pytest.approx(100.0)
        assert np.allclose(state.orientation, (0, 0, math.sqrt(0.5), math.sqrt(0.5)), atol=1e-6)
        assert state.position_sigma == pytest.approx(25.0)
        eventually(lambda: len(stamps) > 5, "stamps")
        assert abs(stamps[-1] - time.time_ns()) < 200_000_000


def test_a_lost_position_is_said_to_be_unhealthy_until_it_returns():
    with linked() as (link, autopilot):
        wait_until_ready(link)
        link.offer_fix(fix())
        eventually(lambda: link.snapshot().state is LinkState.LOST, "lost")
        eventually(
            lambda: any(m.flags == 1 for m in autopilot.of("GLOBAL_POSITION_SENSOR")), "unhealthy"
        )
        assert all(
            math.isnan(m.eph) for m in autopilot.of("GLOBAL_POSITION_SENSOR") if m.flags == 1
        )
        assert link.offer_fix(fix()).send
        assert link.snapshot().state is LinkState.ACTIVE


@pytest.mark.parametrize(
    "faults",
    [
        Faults(drop=0.3),
        Faults(delay=0.3),
        Faults(reorder=0.3),
        Faults(corrupt=0.3),
        Faults(drop=0.2, corrupt=0.2, reorder=0.2, delay=0.1),
    ],
    ids=str,
)
def test_the_link_bears_a_bad_line_and_recovers(faults):
    with linked() as (link, autopilot):
        wait_until_ready(link)
        autopilot.said.faults = faults
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            link.offer_fix(fix())
            time.sleep(0.01)
        autopilot.said.faults = Faults()
        eventually(lambda: link.offer_fix(fix()).send, "a fix that is sent", 3.0)
        status = link.snapshot()
        counted = sum(status.counts.values())
        assert counted == status.counts["sent"] + sum(
            n for reason, n in status.counts.items() if reason != "sent"
        )
        for _, got in autopilot.got["GLOBAL_POSITION_SENSOR"]:
            assert got.flags == 1 or got.processing_time <= LIMITS.max_age * 1e6
        if faults.drop:
            assert status.lost > 0


def test_a_restart_and_a_jumping_clock_are_survived_and_counted():
    with linked() as (link, autopilot):
        wait_until_ready(link)
        eventually(lambda: autopilot.boot_ns > 2_500_000_000, "a clock that can go back")
        autopilot.restart()
        eventually(lambda: link.snapshot().restarts == 1, "the restart")
        wait_until_ready(link)
        assert link.offer_fix(fix()).send
        autopilot.jump_clock(100.0)
        eventually(lambda: link.snapshot().clock_jumps >= 1, "the jump")
        eventually(lambda: link.offer_fix(fix()).send, "a fix that is sent", 3.0)
        got = autopilot.wait_for("GLOBAL_POSITION_SENSOR", 2)[-1]
        assert got.time_usec == pytest.approx(autopilot.boot_ns / 1000, abs=300_000)


def test_an_autopilot_that_falls_silent_gets_nothing_until_it_speaks():
    with linked() as (link, autopilot):
        wait_until_ready(link)
        autopilot.said.silent = True
        eventually(lambda: link.offer_fix(fix()).reason == "no_autopilot", "silence", 3.0)
        autopilot.said.silent = False
        eventually(lambda: link.offer_fix(fix()).send, "a fix that is sent", 3.0)


def test_ten_thousand_random_fixes_leave_nothing_malformed_on_the_wire():
    rng = np.random.default_rng(3)
    odd = np.array([0.0, 1e-300, 47.0, -90.0, 90.0, 90.1, 180.0, -180.0, 361.0, 1e308,
                    math.nan, math.inf, -math.inf])  # fmt: skip
    limits = PolicyLimits(max_rate=1e6, max_speed=1e9, max_sigma=1e4, max_age=5.0)
    for kind in ("px4", "ardupilot"):
        with linked(limits, kind=kind) as (link, autopilot):
            wait_until_ready(link)
            for n in range(5000):
                place = rng.choice(odd, 3) if n % 2 else (*rng.uniform(-90, 90, 2), 100.0)
                root = rng.normal(size=(3, 3)) * rng.choice([0.0, 1e-9, 1.0, 1e3])
                covariance = (root @ root.T).ravel() if n % 3 else rng.choice(odd, 9)
                stamp = time.time_ns() + int(rng.choice([-(10**10), -(10**8), -(10**6), 0, 10**9]))
                link.offer_fix(Fix(max(stamp, 0), *place, tuple(covariance), int(n)))  # type: ignore[arg-type]
            status = link.snapshot()
            assert sum(status.counts.values()) == 5000
            sent = status.counts["sent"]
            assert sent > 100
            name = "GLOBAL_POSITION_SENSOR" if kind == "px4" else "COMMAND_INT"
            time.sleep(0.2)
            assert autopilot.got["BAD_DATA"] == []
            for got in autopilot.of(name):
                lat, lon = (got.lat, got.lon) if kind == "px4" else (got.x, got.y)
                sigma = got.eph if kind == "px4" else got.param3
                assert abs(lat) <= 900_000_000
                assert abs(lon) <= 1_800_000_000
                assert (kind == "px4" and got.flags == 1) or 0.5 <= sigma <= 1e4
                assert kind == "px4" or 0.0 <= got.param2 <= 5.0


@pytest.mark.parametrize("url", ["", "udp:no_such_host_name:1", "/dev/no_such_device"])
def test_a_port_that_cannot_be_opened_is_one_clear_line(url):
    with pytest.raises(ConfigurationError, match="autopilot_url"):
        Connection(url)
