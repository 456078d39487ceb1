"""A reference of any size against frames of any size, on the real XFeat."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def open_session(cache):
    sessions = []

    def make(**changes):
        values = {
            "task": "match",
            "runtime": "onnxruntime",
            "device": "cpu",
            "engine_cache_directory": cache,
            "image_width": 320,
            "image_height": 256,
            "max_keypoints": 400,
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
    """Real ground, (800, 800)."""
    scene = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    assert min(scene.shape) >= 800
    return np.ascontiguousarray(scene[:800, :800])


def frame(ground, left, top, width=320, height=256):
    """A frame of the ground under the same light, by another sensor."""
    crop = ground[top : top + height, left : left + width].astype(np.float64)
    noise = np.random.default_rng(left + top).normal(0.0, 1.5, crop.shape)
    return np.clip(0.9 * crop + 10 + noise, 0, 255).astype(np.uint8)


def assert_placed(result, expected, tolerance=1.5, part=None):
    """The model takes the corners of the frame, or of a part, to where they are on the reference.

    ``part`` is left, top, right and bottom, px of the frame.
    """
    assert result.geometry is not None
    assert result.geometry.inlier_count >= 20
    whole = (0, 0, result.features.width - 1, result.features.height - 1)
    left, top, right, bottom = part or whole
    corners = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]], float)
    placed = cv2.perspectiveTransform(corners, result.geometry.matrix)[0]
    np.testing.assert_allclose(placed, cv2.transform(corners, expected)[0], atol=tolerance)
    points = result.reference_features.keypoints[result.matches.reference_indices]
    np.testing.assert_array_equal(points, result.matches.reference_points)


@pytest.mark.parametrize("geometry", ["homography", "none"])
@pytest.mark.parametrize(("left", "top"), [(0, 0), (85, 400), (470, 137), (410, 540)])
def test_a_map_larger_than_the_engine_matches_at_the_frames_scale(
    open_session, ground, left, top, geometry
):
    session = open_session(geometry=geometry)
    session.set_reference(ground, "map")
    result = session.process(frame(ground, left, top), 0, None)
    if geometry == "homography":
        assert_placed(result, np.float64([[1, 0, left], [0, 1, top]]))
    else:
        moved = result.matches.reference_points - result.matches.query_points
        assert np.mean(np.linalg.norm(moved - (left, top), axis=1) < 2.0) > 0.5
        assert result.matches.count > 40
    assert "tiles of 320x256 px" in session.reference_described
    assert "the frames' scale" in session.reference_described


def test_a_matcher_network_sees_no_more_than_its_k(open_session, ground):
    session = open_session(matcher="lighterglue", max_keypoints=256)
    session.set_reference(ground[:400], "map")
    result = session.process(frame(ground, 300, 120), 0, None)
    assert_placed(result, np.float64([[1, 0, 300], [0, 1, 120]]))


def test_the_whole_reference_still_matches_a_frame_of_all_of_it(open_session, ground):
    """A photograph of the same view with more pixels than the frames."""
    session = open_session()
    session.set_reference(ground[:640], "photo")
    small = cv2.resize(ground[:640], (320, 256), interpolation=cv2.INTER_AREA)
    result = session.process(small, 0, None)
    assert_placed(result, np.float64([[2.5, 0, 0.75], [0, 2.5, 0.75]]), 4.0)


def test_frames_larger_than_the_engine_are_seen_at_half_and_so_is_the_map(open_session, ground):
    session = open_session()
    session.set_reference(ground, "map")
    result = session.process(frame(ground, 100, 200, 640, 360), 0, None)
    assert_placed(result, np.float64([[1, 0, 100], [0, 1, 200]]), 3.0)


def test_a_map_smaller_than_the_engine_is_not_only_seen_enlarged(open_session, ground):
    session = open_session()
    session.set_reference(ground[300:428, 300:460], "chip")
    result = session.process(frame(ground, 220, 240), 0, None)
    assert_placed(result, np.float64([[1, 0, -80], [0, 1, -60]]), 4.0, (90, 70, 230, 180))


def test_one_of_the_engines_own_size_is_seen_once(open_session, ground):
    """As if there were no scales: the same features, the same pairs."""
    session = open_session()
    reference = session.set_reference(frame(ground, 100, 100), "engine's own size")
    result = session.process(frame(ground, 120, 110), 0, None)
    assert result.reference_features.count == reference.count <= 400
    direct = session.streams[0].matcher.match(result.features, reference)
    np.testing.assert_array_equal(direct.reference_indices, result.matches.reference_indices)
    assert session.reference_described == "reference of 320x256 px is seen whole at 1 px per px"


def test_a_scale_that_is_asked_for_is_the_only_one(open_session, ground):
    session = open_session(reference_scale=0.5)
    session.set_reference(ground, "map")
    half = cv2.resize(ground, (400, 400), interpolation=cv2.INTER_AREA)
    result = session.process(frame(half, 60, 90), 0, None)
    assert_placed(result, np.float64([[2, 0, 120.5], [0, 2, 180.5]]), 3.0)
    assert session.reference_described == (
        "reference of 800x800 px is seen in 6 tiles of 320x256 px at 0.5 px per px"
    )


def test_more_tiles_than_there_are_is_refused_or_said(open_session, ground):
    large = np.kron(ground, np.ones((4, 4), np.uint8))
    session = open_session(reference_scale=1.0)
    with pytest.raises(InvalidParameterError, match=r"reference_scale.*at most 64 tiles"):
        session.set_reference(large, "map")
    session = open_session(max_keypoints=50)
    session.set_reference(large, "map")
    session.process(frame(ground, 0, 0), 0, None)
    assert "short of the frames' scale of 1," in session.reference_described


def test_maps_at_any_heading(open_session, ground):
    session = open_session(reference_angles=8, max_keypoints=300)
    session.set_reference(ground[:512], "map")
    turn = cv2.getRotationMatrix2D((400.0, 250.0), 90.0, 1.0)
    turned = cv2.warpAffine(ground, turn, (800, 800))
    result = session.process(frame(turned, 240, 120), 0, None)
    back = cv2.invertAffineTransform(turn)
    back[:, 2] += back[:, :2] @ (240, 120)
    assert_placed(result, back, 4.0)


def test_noise_is_placed_nowhere_on_a_map(open_session, ground):
    session = open_session()
    session.set_reference(ground, "map")
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(90, 30, (256, 320)).clip(0, 255)
        blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
        stretched = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        assert session.process(stretched, 0, None).geometry is None
