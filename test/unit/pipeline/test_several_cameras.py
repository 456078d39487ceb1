"""Several cameras on one engine: each gets what it gets alone, in a batch and in turn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.errors import (
    ConfigurationError,
    FrameError,
    InferenceError,
    InvalidParameterError,
)
from gps_denied_inference.runtimes.fake import FakeRuntime
from gps_denied_inference.session import Frame, InferenceSession
from gps_denied_inference.settings import Settings

PERIOD = 40_000_000  # ns
NAMES = ("left", "right", "down")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def open_session(cache):
    sessions = []

    def make(**changes):
        values = {
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


def seen(ground, camera, i):
    """What a camera sees in frame i: each another place, flying another way."""
    top, left = ((100, 50 + 3 * i), (400 + 2 * i, 300), (600, 600 - 4 * i))[camera]
    return np.ascontiguousarray(ground[top : top + 256, left : left + 320])


def compare(got, wanted):
    assert got.features.count == wanted.features.count
    order = [np.lexsort(r.features.keypoints.T) for r in (got, wanted)]
    for name, tolerance in (("keypoints", 0.02), ("scores", 1e-4), ("descriptors", 2e-3)):
        mine, other = (
            getattr(r.features, name)[o] for r, o in zip((got, wanted), order, strict=True)
        )
        np.testing.assert_allclose(mine, other, atol=tolerance)
    assert got.quality == wanted.quality
    assert got.reference_tag == wanted.reference_tag


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("task", ["extract", "track", "match"])
def test_each_camera_is_answered_as_alone(open_session, ground, task, batch):
    changes = {"task": task, "detection_interval": 2} if task == "track" else {"task": task}
    together = open_session(camera_names=list(NAMES), engine_batch=batch, **changes)
    assert len(together._networks.handles) == 1
    alone = [open_session(**changes) for _ in NAMES]
    if task == "match":
        for camera, session in enumerate(alone):
            session.set_reference(seen(ground, camera, 0), f"map {camera}")
            together.set_reference(seen(ground, camera, 0), f"map {camera}", camera)
    for i in range(6):
        frames = {
            camera: Frame(seen(ground, camera, i), (i + 1) * PERIOD, f"{camera} {i}")
            for camera in range(len(NAMES))
            if (camera, i) != (1, 3)  # one frame of one camera does not come
        }
        answers = together.process_together(frames)
        assert list(answers) == list(frames)
        for camera, frame in frames.items():
            wanted = alone[camera].process(frame.image, frame.stamp_ns, frame.tag)
            compare(answers[camera], wanted)
            if task == "track":
                assert answers[camera].track.event == wanted.track.event
                assert answers[camera].track.detected == wanted.track.detected
                got, want = (
                    r.features.track_ages[np.lexsort(r.features.keypoints.T)]
                    for r in (answers[camera], wanted)
                )
                assert (got == want).mean() > 0.98
            if task == "match":
                assert answers[camera].geometry is not None


def test_a_bad_frame_takes_nothing_from_the_others(open_session, ground):
    session = open_session(camera_names=["left", "right"], engine_batch=2, task="track")
    colour = np.zeros((256, 320, 3), np.uint8)
    answers = session.process_together(
        {0: Frame(seen(ground, 0, 0), PERIOD, None), 1: Frame(colour, PERIOD, None)}
    )
    assert answers[0].features.count > 100
    assert isinstance(answers[1], FrameError)
    assert answers[1].reason == "wrong_channels"


def test_a_failed_pass_is_every_waiting_frames_answer(monkeypatch, open_session, ground):
    monkeypatch.setenv("GDI_FAKE_RUNTIME", "1")
    session = open_session(runtime="fake", camera_names=["left", "right"], engine_batch=2)
    frames = {camera: Frame(seen(ground, camera, 0), PERIOD, None) for camera in (0, 1)}
    runtime = session._networks._runtime
    assert isinstance(runtime, FakeRuntime)
    runtime.failures.append(InferenceError("broken"))
    answers = session.process_together(frames)
    assert all(isinstance(answer, InferenceError) for answer in answers.values())
    assert all(a.features.count > 0 for a in session.process_together(frames).values())


def test_health_and_restarts_are_each_cameras(open_session, ground):
    session = open_session(camera_names=["left", "right"], task="track")
    for i in range(22):
        session.process_together(
            {
                0: Frame(seen(ground, 0, i), (i + 1) * PERIOD, None),
                1: Frame(np.zeros((256, 320), np.uint8), (i + 1) * PERIOD, None),
            }
        )
    good, dark = (stream.health.finding(None, 10.0) for stream in session.streams)
    assert good is None
    assert "they are dark" in dark.line
    session.restart_tracks()
    assert session.streams[1].health.finding(None, 10.0) is None


def test_a_closed_session_drops_each_frame():
    session = InferenceSession(Settings(camera_names=("left", "right")))
    answers = session.process_together({0: Frame(np.zeros((8, 8), np.uint8), 1, None)})
    assert answers[0].reason == "not_configured"
    assert session.reference is None
    with pytest.raises(ConfigurationError):
        _ = session.health


def test_a_model_that_takes_one_at_a_time(open_session):
    with pytest.raises(InvalidParameterError, match="engine_batch"):
        open_session(model="aliked-t16", camera_names=["left", "right"], engine_batch=2)


def test_a_cpu_takes_one_at_a_time_unless_told(open_session):
    assert open_session(camera_names=["left", "right"]).handle.entry.config.batch == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"camera_names": ["left", "left"]}, "camera_names"),
        ({"camera_names": ["left", ""]}, "camera_names"),
        ({"camera_names": ["9left"]}, "camera_names"),
        ({"camera_names": ["a/b"]}, "camera_names"),
        ({"camera_names": ["a__b"]}, "camera_names"),
        ({"camera_names": [f"c{i}" for i in range(17)]}, "camera_names"),
        ({"camera_names": ["a", 3]}, "camera_names"),
        ({"camera_names": "left"}, "camera_names"),
        ({"camera_names": ["a", "b"], "engine_batch": 3}, "engine_batch"),
        ({"engine_batch": 2}, "engine_batch"),
        ({"camera_names": ["a", "b"], "task": "localize", "map_file": "m"}, "camera_names"),
    ],
)
def test_names_that_cannot_be(changes, name):
    with pytest.raises(InvalidParameterError) as refusal:
        Settings.from_mapping(changes)
    assert refusal.value.name == name


@pytest.mark.parametrize("names", [[""], [], ()])
def test_no_name_is_one_camera(names):
    assert Settings.from_mapping({"camera_names": names}).cameras == ("",)


def test_one_camera_with_a_name_may_localize():
    settings = Settings.from_mapping(
        {"camera_names": ["down"], "task": "localize", "map_file": "m"}
    )
    assert settings.cameras == ("down",)
