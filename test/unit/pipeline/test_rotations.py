"""A reference seen at several angles: points mapped back, the right angle chosen and kept."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour
from gps_denied_inference.pipeline.rotations import RotatedReference, RotationMatcher

SIZE = (240, 320)


def scene():
    """Spots of different brightness: an image whose points can be told apart."""
    image = np.zeros(SIZE, np.uint8)
    rng = np.random.default_rng(0)
    while np.count_nonzero(image[::1] == 255) < 60 * 9:
        y, x = rng.integers(30, SIZE[0] - 30), rng.integers(30, SIZE[1] - 30)
        if not image[y - 6 : y + 7, x - 6 : x + 7].any():
            image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


class Upright:
    """Finds spots; describes each by where its nearest others lie, upright, as XFeat would."""

    def __init__(self):
        self.calls = 0

    def extract(self, image):
        self.calls += 1
        _, _, _, centres = cv2.connectedComponentsWithStats((image > 60).astype(np.uint8))
        points = centres[1:]
        descriptors = []
        for point in points:
            offsets = points - point
            near = offsets[np.argsort(np.linalg.norm(offsets, axis=1))[1:6]]
            described = np.exp(1j * np.arange(1, 9)[:, None] * (near @ (0.03, 0.05j))[None]).sum(1)
            descriptors.append(np.concatenate([described.real, described.imag]))
        descriptors = np.float32(descriptors)
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        count = len(points)
        ones = np.ones(count, np.float32)
        return Features(np.float32(points), ones, descriptors, SIZE[1], SIZE[0], "up", "aa")


def turn(image, angle):
    matrix = cv2.getRotationMatrix2D(((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, SIZE[::-1]), np.vstack([matrix, [0, 0, 1]])


def test_views_lie_on_the_upright_image():
    reference = RotatedReference.extract(Upright(), scene(), angles=4)
    assert len(reference.views) == 4
    upright = reference.views[0].keypoints
    for view in reference.views[1:]:
        distance = np.linalg.norm(view.keypoints[:, None] - upright[None], axis=2).min(axis=1)
        assert view.count > 30
        assert np.percentile(distance, 95) < 0.6
    assert reference.all.count == sum(view.count for view in reference.views)


@pytest.mark.parametrize("angle", [0, 90, -90, 180])
def test_the_angle_that_fits_is_found_and_kept(angle):
    extractor, image = Upright(), scene()
    reference = RotatedReference.extract(extractor, image, angles=4)
    turned, truth = turn(image, angle)
    query = extractor.extract(turned)
    matcher = RotationMatcher(MutualNearestNeighbour(0.99), enough=15)
    matches, model = matcher.match(query, reference)
    assert model is not None
    assert model.inlier_count >= 15
    back = np.linalg.inv(truth)
    np.testing.assert_allclose(model.matrix, back / back[2, 2], atol=0.05, rtol=0.05)
    np.testing.assert_array_equal(
        reference.all.keypoints[matches.reference_indices], matches.reference_points
    )
    asked = []

    class Counting:
        def match(self, query, reference):
            asked.append(reference)
            return MutualNearestNeighbour(0.99).match(query, reference)

    matcher._matcher = Counting()
    again, _ = matcher.match(query, reference)
    assert len(asked) == 1
    np.testing.assert_array_equal(again.reference_indices, matches.reference_indices)


def test_nothing_fits_and_that_is_said():
    extractor = Upright()
    reference = RotatedReference.extract(extractor, scene(), angles=4)
    noise = np.random.default_rng(9).normal(size=(50, 16)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    points = np.random.default_rng(8).uniform(0, 240, (50, 2)).astype(np.float32)
    query = Features(points, np.ones(50, np.float32), noise, SIZE[1], SIZE[0], "up", "aa")
    matches, model = RotationMatcher(MutualNearestNeighbour(-1.0)).match(query, reference)
    assert model is None
    assert matches.count > 0


def test_one_angle_is_one_extraction():
    extractor = Upright()
    assert len(RotatedReference.extract(extractor, scene(), angles=1).views) == 1
    assert extractor.calls == 1


@pytest.mark.parametrize("angles", [0, 37, -1])
def test_angles_out_of_bounds(angles):
    with pytest.raises(InvalidParameterError, match="angles"):
        RotatedReference.extract(Upright(), scene(), angles)
