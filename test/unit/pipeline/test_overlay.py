"""The debug image: right shape, the frame left alone, colours where they belong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matches
from gps_denied_inference.pipeline.overlay import (
    FEATURE,
    INLIER,
    OUTLIER,
    UNVERIFIED,
    draw_overlay,
)

POINTS = np.array([[200.0, 100.0], [200.0, 200.0]], np.float32)
FEATURES = Features(
    POINTS, np.ones(2, np.float32), np.zeros((2, 4), np.float32), 640, 480, "xfeat", "aa"
)
INDEX = np.arange(2, dtype=np.int32)
MATCHES = Matches(INDEX, INDEX, np.ones(2, np.float32), POINTS, POINTS + np.float32([100.0, 0.0]))


def near(image, x, y, colour):
    """Tell whether the colour is within 2 px of a spot."""
    patch = image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).astype(int)
    return bool((np.abs(patch - colour).max(axis=1) < 30).any())


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 3)])
def test_features_are_drawn_on_a_copy(shape):
    image = np.full(shape, 60, np.uint8)
    image.setflags(write=False)
    drawn = draw_overlay(image, FEATURES)
    assert drawn.shape == (480, 640, 3)
    assert drawn.dtype == np.uint8
    assert near(drawn, 200, 100, FEATURE)
    assert (image == 60).all()


def test_matches_are_coloured_by_what_verified_them():
    image = np.full((480, 640), 60, np.uint8)
    model = GeometricModel("homography", np.eye(3), np.array([True, False]), 0.5)
    verified = draw_overlay(image, FEATURES, MATCHES, model)
    assert near(verified, 250, 100, INLIER)
    assert near(verified, 250, 200, OUTLIER)
    assert near(draw_overlay(image, FEATURES, MATCHES), 250, 100, UNVERIFIED)


def test_old_tracks_look_old():
    ids, ages = np.array([1, 2], np.uint64), np.array([0, 50], np.uint32)
    tracked = dataclasses.replace(FEATURES, track_ids=ids, track_ages=ages)
    drawn = draw_overlay(np.full((480, 640), 60, np.uint8), tracked)
    assert near(drawn, 200, 100, FEATURE)
    assert not near(drawn, 200, 200, FEATURE)


def test_strange_input_is_drawn_all_the_same():
    wild = np.array([[np.nan, 1e30], [-1e30, 5.0]], np.float32)
    matches = Matches(INDEX, INDEX, np.ones(2, np.float32), POINTS, wild)
    assert draw_overlay(np.zeros((48, 64), np.uint8), FEATURES, matches).shape == (48, 64, 3)
    nothing = dataclasses.replace(FEATURES, keypoints=POINTS[:0])
    assert draw_overlay(np.zeros((48, 64), np.uint8), nothing, Matches.none()).any()
