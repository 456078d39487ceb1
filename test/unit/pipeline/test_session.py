"""The session that node and replay share, on a real engine."""

from __future__ import annotations

import cv2
import hostile_images
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.errors import (
    ConfigurationError,
    FrameError,
    GpsDeniedInferenceError,
    ModelNotFoundError,
)
from gps_denied_inference.images.compressed import decode_image
from gps_denied_inference.images.raw import scale_to_8_bit
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("engines"))


def settings(cache, **changes):
    values = {
        "runtime": "onnxruntime",
        "device": "cpu",
        "engine_cache_directory": cache,
        "image_width": 320,
        "image_height": 256,
        "max_keypoints": 300,
        "threads": 2,
    } | changes
    return Settings.from_mapping(values)


def scene(shift=0, size=(256, 320)):
    """Real ground from above, moved by whole pixels."""
    ground = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(ground[200 : 200 + size[0], 200 + shift : 200 + shift + size[1]])


@pytest.fixture
def open_session(cache):
    sessions = []

    def make(**changes):
        session = InferenceSession(settings(cache, **changes))
        sessions.append(session)
        session.open()
        return session

    yield make
    for session in sessions:
        session.close()


def test_keypoints_of_a_larger_image_come_out_in_its_own_pixels(open_session):
    session = open_session()
    small = scene()
    large = np.kron(small, np.ones((2, 2), np.uint8))
    at_once = session.process(small, 0, None).features
    scaled = session.process(large, 0, None).features
    assert (scaled.width, scaled.height) == (640, 512)
    # Pixel x of the small image covers pixels 2x and 2x + 1 of the large one: centre 2x + 0.5.
    expected = 2 * at_once.keypoints + 0.5
    distance = np.linalg.norm(expected[:, None] - scaled.keypoints[None], axis=2).min(axis=1)
    assert np.mean(distance < 1e-3) == 1.0


def test_tracks_keep_their_ids_and_follow_the_motion(open_session):
    session = open_session(task="track")
    first = session.process(scene(0), 0, "a")
    second = session.process(scene(4), 33_000_000, "b")
    assert first.matches is None
    assert second.reference_tag == "a"
    before = dict(zip(first.features.track_ids.tolist(), first.features.keypoints, strict=True))
    moved = [
        before[i] - point
        for i, point in zip(
            second.features.track_ids.tolist(), second.features.keypoints, strict=True
        )
        if i in before
    ]
    assert len(moved) >= 100
    assert np.allclose(np.median(moved, axis=0), [4, 0], atol=0.5)


def test_the_network_sees_every_nth_frame_and_tracks_go_on_between(open_session):
    session = open_session(task="track", detection_interval=3)
    results = [session.process(scene(2 * i), i * 33_000_000, i) for i in range(8)]
    seen = ["infer" in result.timings for result in results]
    assert seen == [True, False, False, True, False, False, True, False]
    assert [result.track.detected for result in results] == seen
    assert ["follow" in r.timings and "track" not in r.timings for r in results] == [
        not one for one in seen
    ]
    first = dict(
        zip(results[0].features.track_ids.tolist(), results[0].features.keypoints, strict=True)
    )
    for i, result in enumerate(results[1:], 1):
        moved = [
            first[track] - point
            for track, point in zip(
                result.features.track_ids.tolist(), result.features.keypoints, strict=True
            )
            if track in first
        ]
        assert len(moved) > 30
        np.testing.assert_allclose(np.median(moved, axis=0), [2 * i, 0], atol=0.3)
        assert result.matches.count > 30
        assert result.geometry is not None


def test_a_frame_that_cannot_be_followed_is_detected_at_once(open_session):
    """Another scene comes between: the count of frames starts again with its detection."""
    session = open_session(task="track", detection_interval=4)
    other = np.ascontiguousarray(scene(400)[::-1])
    images = [scene(0), scene(2), other, np.roll(other, 2, axis=1), scene(4)]
    results = [session.process(image, i * 33_000_000, i) for i, image in enumerate(images)]
    assert [result.track.detected for result in results] == [True, False, True, True, True]
    assert results[2].track.event == "lost"
    assert {"follow", "extract", "infer", "track"} <= set(results[2].timings)


def test_a_pause_ends_the_following(open_session):
    session = open_session(task="track", detection_interval=4)
    session.process(scene(0), 0, 0)
    session.restart_tracks()
    assert session.process(scene(2), 33_000_000, 1).track.detected


def test_wrong_channels_are_refused_between_detections_too(open_session):
    session = open_session(task="track", detection_interval=2)
    session.process(scene(), 0, None)
    with pytest.raises(FrameError) as refusal:
        session.process(np.dstack([scene(2)] * 3), 33_000_000, None)
    assert refusal.value.reason == "wrong_channels"
    assert not session.process(scene(2), 66_000_000, None).track.detected


def test_match_waits_for_its_reference_and_then_verifies(open_session):
    session = open_session(task="match")
    assert session.process(scene(6), 0, None).matches is None
    session.set_reference(scene(0), "map")
    result = session.process(scene(6), 1, None)
    assert result.reference_tag == "map"
    assert result.geometry is not None
    assert result.geometry.inlier_count >= 100
    assert np.allclose(result.geometry.matrix, [[1, 0, 6], [0, 1, 0], [0, 0, 1]], atol=0.2)


def test_a_reference_seen_at_several_angles_matches_at_any_heading(open_session):
    quarter = np.ascontiguousarray(np.rot90(scene(0, (256, 256))))
    upright = open_session(task="match", image_width=256)
    upright.set_reference(scene(0, (256, 256)), "map")
    turned = open_session(task="match", image_width=256, reference_angles=8)
    turned.set_reference(scene(0, (256, 256)), "map")
    missed = upright.process(quarter, 0, None).geometry
    found = turned.process(quarter, 0, None).geometry
    assert found is not None
    assert found.inlier_count >= 250  # of 300
    assert missed is None or missed.inlier_count < 20
    # A pixel (x, y) of the turned frame is (255 - y, x) of the reference.
    corners = np.array([[40, 40, 1], [215, 40, 1], [215, 215, 1], [40, 215, 1]], float)
    mapped = corners @ found.matrix.T
    expected = np.column_stack([255 - corners[:, 1], corners[:, 0]])
    error = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - expected, axis=1)
    assert error.max() < 0.1


def test_a_reduced_engine_is_used_while_fewer_keypoints_are_commanded(open_session):
    session = open_session(thermal_reduced_keypoints=50)
    assert session.process(scene(), 0, None).features.count > 50
    session.limit_keypoints(50)
    assert session.process(scene(), 0, None).features.count == 50
    session.limit_keypoints(0)
    assert session.process(scene(), 0, None).features.count > 50


@pytest.mark.parametrize("matcher", ["mutual_nearest_neighbour", "lighterglue"])
def test_matchers_follow_a_moving_camera(open_session, matcher):
    session = open_session(task="track", matcher=matcher)
    for step in range(3):
        result = session.process(scene(4 * step), step * 10**8, None)
    assert (result.features.track_ages >= 2).sum() > 50


@pytest.mark.parametrize(
    ("model", "asked", "taken"),
    [("xfeat", 0.0, 0.82), ("aliked-t16", 0.0, 0.5), ("aliked-n16", 0.0, 0.5), ("xfeat", 0.6, 0.6)],
)
def test_each_network_brings_its_least_likeness(open_session, model, asked, taken):
    session = open_session(task="track", model=model, min_cosine=asked)
    assert session.streams[0].matcher.min_cosine == taken


def test_nearest_neighbours_of_aliked_find_another_view(open_session, shared_data):
    session = open_session(task="match", model="aliked-n16", image_width=640, image_height=480,
                           max_keypoints=1000)  # fmt: skip
    files = sorted((shared_data / "village_dev" / "images").iterdir())
    first, second = (
        cv2.resize(cv2.imread(str(files[i]), 0), (640, 480), interpolation=cv2.INTER_AREA)
        for i in (30, 31)
    )
    session.set_reference(first, "map")
    result = session.process(second, 0, None)
    assert result.geometry is not None
    assert result.geometry.inlier_count >= 50  # 26 with XFeat's


@pytest.mark.parametrize("model", ["aliked-t16", "aliked-n16"])
def test_the_second_family_tracks_as_well(open_session, model):
    session = open_session(task="track", model=model)
    for step in range(3):
        result = session.process(scene(4 * step), step * 10**8, None)
    assert result.features.model == model
    assert (result.features.track_ages >= 2).sum() > 50


@pytest.mark.parametrize(
    ("matcher", "model"), [("aliked-lightglue", "xfeat"), ("lighterglue", "aliked-t16")]
)
def test_a_matcher_trained_for_other_features_is_refused(cache, matcher, model):
    # Also where the descriptors happen to be as long: both of the latter have 64 floats.
    session = InferenceSession(settings(cache, task="track", matcher=matcher, model=model))
    with pytest.raises(ConfigurationError, match=f"'{matcher}' was trained for .*'{model}'"):
        session.open()
    assert not session.is_open


def test_wrong_channels_are_a_frame_error_not_a_crash(open_session):
    session = open_session()
    with pytest.raises(FrameError) as refusal:
        session.process(np.zeros((256, 320, 3), np.uint8), 0, None)
    assert refusal.value.reason == "wrong_channels"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"weights_file": "/nonexistent/xfeat.pt"}, ModelNotFoundError),
        ({"model": "lighterglue"}, ConfigurationError),
        ({"task": "match", "reference_file": "/nonexistent/map.png"}, ConfigurationError),
    ],
)
def test_a_failed_open_takes_nothing_and_may_be_retried(cache, changes, error):
    session = InferenceSession(settings(cache, **changes))
    for _ in range(2):
        with pytest.raises(error):
            session.open()
        assert not session.is_open
    with pytest.raises(GpsDeniedInferenceError):
        _ = session.readback


def test_a_reference_file_is_read_as_frames_are(open_session, tmp_path):
    """A thermal map keeps its contrast, and a turned photograph its raster."""
    thermal = scene().astype(np.uint16) * 3 + 7000
    turned = hostile_images.turned(hostile_images.encode(".jpg", scene()))
    files = {
        "map.tiff": (hostile_images.encode(".tiff", thermal), scale_to_8_bit(thermal, "minmax")),
        "map.jpg": (turned, decode_image(turned)),
    }
    for name, (data, frame) in files.items():
        (tmp_path / name).write_bytes(data)
        reference = str(tmp_path / name)
        session = open_session(task="match", mono16_scaling="minmax", reference_file=reference)
        result = session.process(frame, 0, None)
        assert result.reference_features.count > 100
        np.testing.assert_array_equal(
            result.reference_features.keypoints, result.features.keypoints
        )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("map.png", hostile_images.png(6000, 5000), "map.png: .*6000 x 5000 px"),
        ("map.jpg", hostile_images.encode(".jpg", np.zeros((40, 40), np.uint8))[:-9], "truncated"),
        ("map.txt", b"no image", "known are JPEG"),
    ],
)
def test_a_reference_file_that_cannot_be_used_is_one_line(cache, tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    session = InferenceSession(settings(cache, task="match", reference_file=str(tmp_path / name)))
    with pytest.raises(ConfigurationError, match=f"reference_file '.*' is refused: .*{words}"):
        session.open()


def test_a_home_folder_of_nobody_is_one_line(cache):
    session = InferenceSession(settings(cache, task="match", reference_file="~nosuchuser/map.png"))
    with pytest.raises(ConfigurationError, match="reference_file '~nosuchuser/map.png'"):
        session.open()
