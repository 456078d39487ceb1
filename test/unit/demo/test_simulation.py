"""The simulated flight: its true motion is true, and it stays over the scene."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.errors import InvalidParameterError, ModelIntegrityError


@pytest.fixture(scope="module")
def flight() -> SimulatedFlight:
    return SimulatedFlight()


def test_every_frame_lies_wholly_within_the_scene(flight: SimulatedFlight) -> None:
    scene = load_scene()
    corners = np.array([[[0, 0]], [[639, 0]], [[639, 479]], [[0, 479]]], np.float64)
    for index in range(len(flight)):
        seen = cv2.perspectiveTransform(corners, np.linalg.inv(flight.projection(index)))
        assert seen.min() >= 0
        assert (seen[:, 0] <= (scene.shape[1] - 1, scene.shape[0] - 1)).all()


def test_motion_brings_one_frame_onto_the_next(flight: SimulatedFlight) -> None:
    """Phase correlation of the moved first frame with the second finds no shift left."""
    for index in (3, 31, 88):
        first, second = (
            cv2.cvtColor(flight.render(k), cv2.COLOR_RGB2GRAY).astype(np.float32)
            for k in (index, index + 1)
        )
        moved = cv2.warpPerspective(first, flight.motion(index, index + 1), (640, 480))
        window = cv2.createHanningWindow((400, 300), cv2.CV_32F)
        middle = np.s_[90:390, 120:520]
        (dx, dy), _ = cv2.phaseCorrelate(moved[middle].copy(), second[middle].copy(), window)
        assert abs(dx) < 0.1
        assert abs(dy) < 0.1
        # and without the motion the frames are far apart, so that the check above can fail
        (dx, dy), _ = cv2.phaseCorrelate(first[middle].copy(), second[middle].copy(), window)
        assert np.hypot(dx, dy) > 2.0


def test_motions_chain_and_invert(flight: SimulatedFlight) -> None:
    chained = flight.motion(41, 42) @ flight.motion(40, 41)
    np.testing.assert_allclose(chained / chained[2, 2], flight.motion(40, 42), atol=1e-9)
    back = flight.motion(42, 40) @ flight.motion(40, 42)
    np.testing.assert_allclose(back / back[2, 2], np.eye(3), atol=1e-9)


def test_the_flight_turns_climbs_tilts_and_the_light_changes(flight: SimulatedFlight) -> None:
    poses = [flight.pose(index) for index in range(len(flight))]
    heights = [pose.height for pose in poses]
    assert max(heights) / min(heights) > 1.2
    assert max(abs(pose.roll) for pose in poses) > np.radians(2)
    assert max(abs(pose.pitch) for pose in poses) > np.radians(2)
    headings = np.unwrap([pose.heading for pose in poses])
    assert headings.max() - headings.min() > np.pi
    brightness = [flight.render(index).mean() for index in range(0, 120, 10)]
    assert max(brightness) > 1.3 * min(brightness)


def test_the_image_top_points_along_the_flight(flight: SimulatedFlight) -> None:
    for index in (10, 50, 100):
        middle = np.array([[[319.5, 239.5]]])
        at = cv2.perspectiveTransform(middle, flight.motion(index, index + 1))[0, 0]
        assert at[1] > 239.5 + 5, "what was in the middle moves down the image"


def test_frames_are_reproducible_and_stamps_rise() -> None:
    frames = list(SimulatedFlight(frames=3))
    again = list(SimulatedFlight(frames=3))
    for one, other in zip(frames, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        assert one.image.dtype == np.uint8
        assert one.image.shape == (480, 640, 3)
    assert frames[0].stamp_ns < frames[1].stamp_ns < frames[2].stamp_ns


def test_one_frame_is_no_flight() -> None:
    with pytest.raises(InvalidParameterError, match="'frames' = 1"):
        SimulatedFlight(frames=1)


def test_another_scene_file_is_refused(tmp_path) -> None:
    (tmp_path / "scene.png").write_bytes(b"something else")
    with pytest.raises(ModelIntegrityError, match="SHA-256"):
        load_scene(tmp_path / "scene.png")


def test_roofs_move_as_they_truly_do() -> None:
    """Patches of roofs and ground, cut out at their true places in two frames, look the same."""
    flight = SimulatedFlight(relief=True)
    start, end = 30, 31
    first, second = (
        cv2.cvtColor(flight.render(k), cv2.COLOR_RGB2GRAY).astype(np.float32) for k in (start, end)
    )
    grid = np.stack(np.meshgrid(np.arange(40, 600, 8), np.arange(40, 440, 8)), -1)
    points = grid.reshape(-1, 2).astype(np.float64)
    around = np.stack(np.meshgrid(np.arange(-12, 13), np.arange(-12, 13)), -1).reshape(-1, 2)
    seen, parallax = set(), []
    for point in points:
        pixels = point + around
        if len(set(flight.surfaces(start, pixels).tolist())) > 1:
            continue
        surface = int(flight.surfaces(start, point[None])[0])
        there = flight.move(start, end, pixels)
        if there.min() < 0 or (there > (639, 479)).any():
            continue
        if (flight.surfaces(end, there) != surface).any():
            continue  # hidden by a higher roof
        then, now = (
            cv2.remap(image, *(np.float32(p.T)[:, :, None]), cv2.INTER_LINEAR).ravel()
            for image, p in ((first, pixels), (second, there))
        )
        if then.std() > 8.0:
            assert np.corrcoef(then, now)[0, 1] > 0.97
            seen.add(surface)
        if surface:
            on_ground = cv2.perspectiveTransform(point[None, None], flight.motion(start, end))
            parallax.append(np.linalg.norm(on_ground[0, 0] - there[len(there) // 2]))
    assert seen == {0, 1, 2, 3}
    assert min(parallax) > 0.2
    assert max(parallax) > 1.2


def test_a_flat_flight_moves_by_its_homography(flight: SimulatedFlight) -> None:
    points = np.random.default_rng(0).uniform(0, 400, (50, 2))
    moved = cv2.perspectiveTransform(points[None], flight.motion(10, 17))[0]
    np.testing.assert_allclose(flight.move(10, 17, points), moved)
    assert not flight.surfaces(10, points).any()
