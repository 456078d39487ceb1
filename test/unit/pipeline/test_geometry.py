"""MAGSAC++ finds the true motion, says nothing where there is none, and repeats itself exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gps_denied_inference.errors import UnknownNameError
from gps_denied_inference.pipeline.geometry import project, residuals_of, verify
from gps_denied_inference.pipeline.matcher import Matches

MODELS = ("homography", "fundamental")
TRUE_H = np.array([[1.02, 0.05, 12.0], [-0.04, 0.99, -8.0], [2e-5, -3e-5, 1.0]])


def matches(query, reference):
    index = np.arange(len(query), dtype=np.int32)
    scores = np.ones(len(query), np.float32)
    return Matches(
        index, index, scores, np.asarray(query, np.float32), np.asarray(reference, np.float32)
    )


def planar(rng, count=300, noise=0.5, wrong=0.3):
    """Pairs on a plane; the last share of them is wrong."""
    query = rng.uniform((0, 0), (640, 480), (count, 2))
    reference = project(TRUE_H, query) + rng.normal(0, noise, (count, 2))
    bad = np.arange(count) >= round(count * (1 - wrong))
    reference[bad] = rng.uniform((0, 0), (640, 480), (int(bad.sum()), 2))
    return matches(query, reference), ~bad


def solid(rng, count=300, noise=0.5, wrong=0.3):
    """Pairs of a scene with depth, seen by a camera that turns and moves."""
    k = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    space = rng.uniform((-4, -3, 6), (4, 3, 14), (count, 3))
    c, s = np.cos(0.05), np.sin(0.05)
    turned = space @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + (0.6, 0.1, 0.1)
    pixels = [(p @ k.T)[:, :2] / p[:, 2:] for p in (space, turned)]
    reference = pixels[1] + rng.normal(0, noise, (count, 2))
    bad = np.arange(count) >= round(count * (1 - wrong))
    reference[bad] = rng.uniform((0, 0), (640, 480), (int(bad.sum()), 2))
    return matches(pixels[0], reference), ~bad


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_homography_is_found(wrong):
    pairs, good = planar(np.random.default_rng(1), wrong=wrong)
    model = verify(pairs, "homography", 3.0)
    corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479]], float)
    error = np.linalg.norm(project(model.matrix, corners) - project(TRUE_H, corners), axis=1)
    assert error.max() < 1.0
    assert model.type == "homography"
    assert (model.inliers == good).mean() > 0.98
    assert 0.4 < model.rms < 1.2
    assert model.inlier_count == model.inliers.sum()
    assert model.matrix[2, 2] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_few_right_pairs_are_found_among_the_most_alike(seed):
    """Forty of six hundred: four random ones are right once in 60,000 draws.

    As on real frames, the right ones are more alike than most, but not all of them the most.
    """
    rng = np.random.default_rng(seed)
    pairs, good = planar(rng, count=600, wrong=560 / 600)
    scores = np.where(good, rng.uniform(0.88, 1.0, 600), rng.uniform(0.82, 0.95, 600))
    shuffled = rng.permutation(600)
    pairs = dataclasses.replace(pairs, scores=scores.astype(np.float32)).select(shuffled)
    good = good[shuffled]
    model = verify(pairs, "homography", 3.0)
    assert model is not None
    assert model.inliers[good].mean() > 0.9
    assert model.inliers[~good].mean() < 0.02


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.5])
def test_fundamental_matrix_is_found(wrong):
    pairs, good = solid(np.random.default_rng(2), wrong=wrong)
    model = verify(pairs, "fundamental", 2.0)
    assert model.type == "fundamental"
    assert model.inliers[good].mean() > 0.97
    assert model.inliers[~good].mean() < 0.15 if wrong else True
    assert abs(np.linalg.det(model.matrix)) < 1e-8
    assert np.linalg.norm(model.matrix) == pytest.approx(1.0)
    # The convention of MatchArray: reference^T F query = 0. Sampson distances in px.
    query, reference = (
        p[good].astype(np.float64) for p in (pairs.query_points, pairs.reference_points)
    )
    right_way = residuals_of(model.matrix, "fundamental", query, reference)
    wrong_way = residuals_of(model.matrix.T.copy(), "fundamental", query, reference)
    assert np.median(right_way) < 0.6
    assert np.median(wrong_way) > 3.0 * np.median(right_way)


def test_depth_is_no_homography():
    pairs, good = solid(np.random.default_rng(3), wrong=0.0)
    plane, scene = verify(pairs, "homography", 2.0), verify(pairs, "fundamental", 2.0)
    assert scene.inlier_count > 0.95 * good.sum()
    assert plane is None or plane.inlier_count < 0.5 * good.sum()


@pytest.mark.parametrize("model", MODELS)
def test_deterministic_with_a_seed(model):
    pairs, _ = planar(np.random.default_rng(4), wrong=0.6)
    first = verify(pairs, model, 2.0, seed=5)
    for _ in range(3):
        again = verify(pairs, model, 2.0, seed=5)
        np.testing.assert_array_equal(first.matrix, again.matrix)
        np.testing.assert_array_equal(first.inliers, again.inliers)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [20, 100, 1000])
def test_random_pairs_have_no_model(model, count):
    """A confident wrong answer is worse than none: 20 draws of pure noise each."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        query, reference = rng.uniform((0, 0), (640, 480), (2, count, 2))
        assert verify(matches(query, reference), model, 3.0, seed) is None


def line(rng, count):
    x = rng.uniform(0, 600, count)
    return np.column_stack([x, 0.5 * x + 10])


@pytest.mark.parametrize("model", MODELS)
def test_degenerate_sets_have_no_model(model):
    rng = np.random.default_rng(6)
    area = rng.uniform(0, 400, (200, 2))
    spot = np.full((200, 2), 100.0)
    on_line = line(rng, 200)
    for query, reference in [
        (area[:0], area[:0]),
        (area[:3], area[:3]),
        (area[:11], area[:11] + 5),
        (on_line, on_line + 7),
        (spot, spot),
        (area, spot),
        (spot, area),
        (np.repeat(area[:3], 60, axis=0), np.repeat(area[:3] + 4, 60, axis=0)),
    ]:
        found = verify(matches(query, reference), model)
        assert found is None or len(np.unique(query[found.inliers], axis=0)) >= 4, len(query)


def test_three_distinct_spots_are_no_plane():
    rng = np.random.default_rng(6)
    spots = np.repeat(rng.uniform(0, 400, (3, 2)), 60, axis=0)
    assert verify(matches(spots, spots + 4), "homography") is None


def test_a_mirrored_plane_is_refused():
    rng = np.random.default_rng(7)
    query = rng.uniform(0, 400, (200, 2))
    assert verify(matches(query, query * (-1, 1) + (400, 0)), "homography") is None


@pytest.mark.parametrize("model", MODELS)
def test_pairs_that_are_not_finite_are_outliers(model):
    pairs, good = planar(np.random.default_rng(8), wrong=0.2)
    pairs.query_points[0] = np.nan
    pairs.reference_points[1] = np.inf
    found = verify(pairs, model)
    assert not found.inliers[:2].any()
    assert found.inliers[2:][good[2:]].mean() > 0.95


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="affine"):
        verify(Matches.none(), "affine")


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 60),
    model=st.sampled_from(MODELS),
    scale=st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
    lattice=st.booleans(),
)
def test_whatever_the_points_the_answer_keeps_its_word(seed, count, model, scale, lattice):
    rng = np.random.default_rng(seed)
    query, reference = rng.uniform(0, 10, (2, count, 2)) * scale
    if lattice:  # many equal points and lines
        query, reference = np.floor(query / scale), np.floor(query / scale) + 1
    assume(count != 1)
    found = verify(matches(query, reference), model, 3.0)
    if found is None:
        return
    assert np.isfinite(found.matrix).all()
    pairs = matches(query, reference)
    residuals = residuals_of(
        found.matrix,
        model,
        pairs.query_points.astype(float)[found.inliers],
        pairs.reference_points.astype(float)[found.inliers],
    )
    assert (residuals < 3.0).all()
    assert found.rms == pytest.approx(np.sqrt(np.mean(residuals**2)))
