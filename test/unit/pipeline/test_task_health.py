"""Frames that are answered and give nothing are found out, with cause and cure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

PERIOD = 33_000_000  # ns


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def open_session(cache):
    sessions = []

    def make(task, **changes):
        values = {
            "task": task,
            "runtime": "onnxruntime",
            "device": "cpu",
            "engine_cache_directory": cache,
            "image_width": 320,
            "image_height": 256,
            "max_keypoints": 200,
            "warmup_iterations": 1,
            "threads": 2,
        }
        session = InferenceSession(Settings.from_mapping(values | changes))
        sessions.append(session)
        session.open()
        return session

    yield make
    for session in sessions:
        session.close()


@pytest.fixture(scope="module")
def ground():
    return cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)


def fly(session, ground, stamps, step=3):
    for i, stamp in enumerate(stamps):
        left = 50 + step * i
        session.process(np.ascontiguousarray(ground[100:356, left : left + 320]), stamp, None)


def finding(session, active_for=10.0, **details):
    return session.health.finding(session.reference, active_for, **details)


@pytest.mark.parametrize("task", ["extract", "track", "match"])
def test_a_good_flight_has_no_finding(open_session, ground, task):
    session = open_session(task)
    if task == "match":
        session.set_reference(np.ascontiguousarray(ground[100:356, 60:380]), "map")
    fly(session, ground, range(PERIOD, 25 * PERIOD, PERIOD))
    assert finding(session) is None


@pytest.mark.parametrize("task", ["extract", "track", "match"])
def test_stamps_of_zero(open_session, ground, task):
    session = open_session(task)
    fly(session, ground, [0] * 6)
    assert finding(session, 0.0).cause == "zero stamps"
    assert "header.stamp" in finding(session, 0.0).line
    fly(session, ground, [PERIOD])
    assert finding(session, 0.0) is None


def test_stamps_that_do_not_rise(open_session, ground):
    session = open_session("track")
    fly(session, ground, [PERIOD] * 7)
    assert finding(session).cause == "stamps do not rise"
    session.restart_tracks()
    assert finding(session) is None
    fly(session, ground, [7 * PERIOD, 8 * PERIOD, PERIOD, 2 * PERIOD])  # a bag that starts again
    assert finding(session) is None


def test_no_reference(open_session, ground):
    session = open_session("match")
    assert finding(session, 1.0) is None
    found = finding(session, 3.0, reference_topic="/left/reference/image")
    assert found.cause == "no reference"
    assert "/left/reference/image" in found.line
    assert "reference_file" in found.line
    assert finding(session, 3.0, reference_waits=True) is None


@pytest.mark.parametrize("level", [0, 90])
def test_a_reference_that_shows_nothing(open_session, level):
    session = open_session("match")
    session.set_reference(np.full((256, 320), level, np.uint8), "black")
    assert finding(session).cause == "featureless reference"


def test_a_reference_out_of_reach_of_the_frames_scale(open_session, ground):
    session = open_session("match")
    large = cv2.resize(ground[:600, :600], (6000, 6000), interpolation=cv2.INTER_NEAREST)
    session.set_reference(large, "map")
    assert finding(session) is None  # no frame came yet
    fly(session, ground, [PERIOD])
    assert finding(session).cause == "reference's scale"
    assert "reference of 6000x6000 px" in finding(session).line


def test_a_reference_of_another_place(open_session, ground):
    session = open_session("match")
    session.set_reference(np.ascontiguousarray(ground[500:756, 500:820]), "elsewhere")
    fly(session, ground, range(PERIOD, 20 * PERIOD, PERIOD), 1)
    assert finding(session) is None
    fly(session, ground, [20 * PERIOD])
    assert finding(session).cause == "no match"


@pytest.mark.parametrize("task", ["extract", "track"])
def test_a_covered_lens(open_session, task):
    session = open_session(task)
    noise = np.random.default_rng(0)
    for i in range(20):
        frame = noise.normal(90.0, 2.0, (256, 320)).astype(np.uint8)
        session.process(frame, (i + 1) * PERIOD, None)
    assert finding(session).cause == "featureless frames"


def test_no_track_ever(open_session):
    """Frames that have nothing in common."""
    session = open_session("track")
    for i in range(21):
        spots = np.random.default_rng(i).normal(0.0, 1.0, (256, 320))
        frame = cv2.normalize(cv2.GaussianBlur(spots, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX)
        session.process(frame.astype(np.uint8), (i + 1) * PERIOD, None)
    assert finding(session).cause == "no tracks"


def test_a_frozen_camera(open_session, ground):
    session = open_session("track")
    fly(session, ground, range(PERIOD, 4 * PERIOD, PERIOD))
    fly(session, ground, range(4 * PERIOD, 26 * PERIOD, PERIOD), step=0)
    assert finding(session).cause == "frozen image"
    fly(session, ground, range(26 * PERIOD, 30 * PERIOD, PERIOD))
    assert finding(session) is None


def spoilt_flight(session, ground, spoil, frames=24, step=3):
    for i in range(frames):
        left = 50 + step * i
        frame = np.ascontiguousarray(ground[100:356, left : left + 320])
        session.process(spoil(frame, i), (i + 1) * PERIOD, None)


def under_noise(gain, offset=0.0):
    """Return what spoils a frame: another exposure, and a sensor's noise."""
    noise = np.random.default_rng(0)

    def spoil(frame, i):
        exposed = frame * gain + offset + noise.normal(0.0, 2.0, frame.shape)
        return np.clip(exposed, 0, 255).astype(np.uint8)

    return spoil


@pytest.mark.parametrize("task", ["extract", "track"])
def test_a_dark_flight_says_so(open_session, ground, task):
    session = open_session(task)
    spoilt_flight(session, ground, under_noise(0.02))
    found = finding(session)
    assert found.cause == "featureless frames"
    assert "they are dark" in found.line
    assert "lengthen the exposure" in found.line


def test_an_overexposed_flight_says_so(open_session, ground):
    session = open_session("track")
    spoilt_flight(session, ground, under_noise(1.0, 253.0))
    assert "they are overexposed" in finding(session).line


def test_tracks_that_die_of_blur_say_so(open_session, ground):
    """A camera that shakes along one axis, then along the other."""
    session = open_session("track", max_followed_frames=0)
    spoilt_flight(session, ground, lambda f, i: cv2.blur(f, (41, 1) if i % 2 else (1, 41)))
    found = finding(session)
    assert found.cause == "tracks die: blurred"
    assert "they are blurred (blur 0." in found.line
    session.restart_tracks()
    assert finding(session) is None
    fly(session, ground, range(50 * PERIOD, 75 * PERIOD, PERIOD))
    assert finding(session) is None


def test_frames_without_fault_blame_no_exposure(open_session):
    session = open_session("track")
    for i in range(21):
        noise = np.random.default_rng(i).integers(0, 256, (256, 320), np.uint8)
        session.process(noise, (i + 1) * PERIOD, None)
    found = finding(session)
    assert found is None or "they are" not in found.line
