"""The flight while it is flown: late fixes land where the flight is by then."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gps_denied_inference.pipeline.localization.course import Course, Seen
from gps_denied_inference.pipeline.localization.fix import Attempt, FrameFix
from gps_denied_inference.pipeline.localization.flight import FlightFilter
from gps_denied_inference.pipeline.localization.prior import Prior

WIDTH = 1.2


def seen(index: int, speed: float = 0.02) -> Seen:
    """Return tracks of a scene that moves by ``speed`` a frame on the image plane."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-0.5, 0.5, (200, 2)) + np.array([0.0, speed * index])
    return Seen.of(index * 100_000_000, np.arange(200, dtype=np.uint64), points)


def place(at: complex, inliers: int = 50) -> Attempt:
    """Return an attempt that is believed at a place."""
    rng = np.random.default_rng(3)
    rays = rng.uniform(-0.4, 0.4, (inliers, 2))
    fix = FrameFix(
        east=at.real, north=at.imag, covariance=np.eye(2), camera=None, camera_covariance=None,
        heading=0.0, heading_sigma=0.02, reach=100.0, reach_sigma=0.02, inliers=inliers,
        runner_up=6, tiles=(1,), rays=rays, ground=rays * 100.0, rms=0.3, confidence=9.0,
    )  # fmt: skip
    return Attempt(fix, "", (fix,), 3, 300)


def test_a_late_fix_gives_the_same_as_one_in_time() -> None:
    course, carried = Course(WIDTH), FlightFilter(WIDTH)
    motions = [seen(k).motion_since(seen(k - 1)) for k in range(1, 10)]
    assert all(motions)
    for k in range(10):
        course.moved(seen(k))
    # On the image things go down by 0.02 a frame: the view goes up it, north by 2 m a frame.
    for first, last in ((0, 3), (3, 6), (6, 9)):
        attempt = place(2j * last)
        course.search_from(last * 100_000_000, Prior())
        estimate = course.found(attempt)
        for motion in motions[first:last]:
            carried.move(motion, 0.1)
        carried.update(attempt)
        assert (estimate.state, estimate.hypotheses) == (
            carried.estimate.state, carried.estimate.hypotheses,
        )  # fmt: skip
        if estimate.state == "located":
            assert estimate.at == pytest.approx(carried.estimate.at)
    assert estimate.state == "located"
    assert estimate.at == pytest.approx(18j, abs=1.0)


def test_what_is_said_of_now_is_carried_on_from_the_late_fix() -> None:
    course = Course(WIDTH)
    for k in range(10):
        course.moved(seen(k))
    for last in (2, 4, 6):
        course.search_from(last * 100_000_000, Prior())
        course.found(place(2j * last))
    now, _, _ = course.moved(seen(10))
    assert now.state == "located"
    assert now.at == pytest.approx(20j, abs=1.5)
    prior = course.search_from(1_000_000_000, Prior(height=100.0, height_sigma=5.0))
    assert prior.position == pytest.approx((0.0, 20.0), abs=1.5)


def test_frames_that_are_not_newer_are_passed_over() -> None:
    course = Course(WIDTH)
    course.moved(seen(5))
    _, motion, seconds = course.moved(seen(5))
    assert motion is None
    assert math.isnan(seconds)
    _, motion, seconds = course.moved(seen(6))
    assert motion is not None
    assert seconds == pytest.approx(0.1)


def later(index: int, seconds: int = 0, ids: int = 0) -> Seen:
    """Return what is seen at a frame three hours on, by a clock that is some s beside the time."""
    true = seen(index)
    stamp_ns = true.stamp_ns + (10_800 + seconds) * 1_000_000_000
    return Seen.of(stamp_ns, true.ids + np.uint64(ids), true.points)


def located_with(course: Course, first: int, ids: int = 0) -> None:
    """Fly nine frames and find three of them; the flight is located then, and where it is."""
    for k in range(first, first + 8):
        course.moved(later(k, ids=ids))
    for k in (first + 2, first + 4, first + 6):
        course.search_from(later(k).stamp_ns, Prior())
        estimate = course.found(place(2j * k))
    assert estimate.state == "located"
    now, motion, step = course.moved(later(first + 8, ids=ids))
    assert now.state == "located"
    assert now.at == pytest.approx(2j * (first + 8), abs=1.5)
    assert motion is not None
    assert step == pytest.approx(0.1)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_flight_is_found_again_at_once_after_stamps_that_jumped(jump: int) -> None:
    """An hour ahead and back, or an hour behind and back: neither costs an hour."""
    course = Course(WIDTH)
    located_with(course, 0)
    for k in range(9, 12):
        estimate, _, _ = course.moved(later(k, jump, ids=1000))
        assert estimate.state == "lost"
    located_with(course, 12, ids=2000)


def test_stamps_that_begin_again_are_a_reset_of_the_position() -> None:
    course = Course(WIDTH)
    located_with(course, 0)
    before, _, _ = course.moved(later(9))
    after, _, seconds = course.moved(seen(1))
    assert (before.state, after.state, seconds) == ("located", "lost", 0.0)
    assert after.resets == before.resets + 1


def test_a_search_of_a_frame_from_before_says_nothing_of_the_new_flight() -> None:
    course = Course(WIDTH)
    located_with(course, 0)
    course.search_from(later(8).stamp_ns, Prior())
    course.moved(seen(1))
    assert course.found(place(16j)).hypotheses == 0
    base = Prior(height=100.0, height_sigma=5.0)
    assert course.search_from(later(8).stamp_ns, base) is base
    assert course.found(place(16j)).hypotheses == 0
    course.search_from(seen(1).stamp_ns, base)
    assert course.found(place(2j)).hypotheses == 1


def test_one_late_frame_costs_no_flight() -> None:
    course = Course(WIDTH)
    located_with(course, 0)
    late, _, seconds = course.moved(later(7))
    assert late.state == "located"
    assert math.isnan(seconds)


def test_motion_is_that_of_the_shared_tracks() -> None:
    before, now = seen(0), seen(1)
    half = Seen.of(now.stamp_ns, now.ids[::2], now.points[::2])
    motion = half.motion_since(before)
    assert motion is not None
    assert motion.similarity.b == pytest.approx(0.02j, abs=1e-6)
    strangers = Seen.of(now.stamp_ns, now.ids + np.uint64(1000), now.points)
    assert strangers.motion_since(before) is None
    assert Seen.of(1, np.zeros(0, np.uint64), np.zeros((0, 2))).motion_since(before) is None
