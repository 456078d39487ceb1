"""Similarities: found among wrong pairs, kept to their bounds, never a mirror."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gps_denied_inference.pipeline.localization.similarity import (
    Bounds,
    Similarity,
    fit,
    search,
)

WIDE = Bounds(0.5, 2.0, math.radians(45.0))
scales, turns = st.floats(0.6, 1.7), st.floats(-0.7, 0.7)
seeds = st.integers(0, 2**32 - 1)


def plane(count, seed, extent=200.0):
    random = np.random.default_rng(seed)
    return random.uniform(-extent, extent, count) + 1j * random.uniform(-extent, extent, count)


@given(scale=scales, turn=turns, seed=seeds)
def test_it_is_found_among_three_times_as_many_wrong_pairs(scale, turn, seed):
    truth = Similarity(scale * cmath.exp(1j * turn), complex(300.0, -70.0))
    z = plane(80, seed)
    w = truth(z)
    w[20:] = plane(60, seed + 1, 400.0)
    found = search(z, w, 2.0, WIDE)
    assert found is not None
    assert found.inliers[:20].all()
    assert found.similarity.scale == pytest.approx(scale, abs=0.02)
    assert found.similarity.angle == pytest.approx(turn, abs=0.02)
    assert abs(found.similarity.b - truth.b) < 2.0


@given(scale=scales, turn=turns, seed=seeds, wrong=st.integers(0, 12))
def test_a_few_wrong_pairs_take_none_of_the_right_ones_away(scale, turn, seed, wrong):
    truth = Similarity(scale * cmath.exp(1j * turn), complex(300.0, -70.0))
    z = plane(100, seed)
    w = truth(z) + np.random.default_rng(seed).normal(0.0, 0.3, 100)
    w[:wrong] += plane(wrong, seed + 1, 60.0) + 30.0
    found = search(z, w, 2.0, WIDE)
    assert found is not None
    assert found.inliers[wrong:].all()
    assert np.count_nonzero(found.inliers[:wrong]) <= 2
    assert abs(found.similarity.b - truth.b) < 0.5
    assert WIDE.holds(found.similarity.a)


@given(scale=scales, turn=turns, seed=seeds)
def test_a_mirror_is_never_agreed_with(scale, turn, seed):
    z = plane(60, seed)
    found = search(z, scale * cmath.exp(1j * turn) * np.conj(z), 2.0, WIDE)
    assert found is None or found.count <= 8


@given(seed=seeds, scale=st.one_of(st.floats(0.05, 0.4), st.floats(2.5, 9.0)))
def test_what_lies_outside_the_bounds_is_not_found(seed, scale):
    z = plane(60, seed)
    found = search(z, scale * z, 1.0, WIDE)
    assert found is None or WIDE.hold(np.array([found.similarity.a]))[0]
    assert found is None or found.count < 15


@given(seed=seeds, scale=scales, turn=turns)
def test_one_after_the_other(seed, scale, turn):
    first = Similarity(scale * cmath.exp(1j * turn), 3 + 4j)
    second = Similarity(0.8 * cmath.exp(0.3j), -7 + 1j)
    z = plane(5, seed)
    assert second.after(first)(z) == pytest.approx(second(first(z)))


def test_the_same_pairs_give_the_same_answer():
    z = plane(90, 1)
    w = np.concatenate([1.1 * z[:30], plane(60, 2)])
    first, again = search(z, w, 3.0, WIDE), search(z, w, 3.0, WIDE)
    assert first is not None
    assert again is not None
    assert first.similarity == again.similarity


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pairs(count):
    z = plane(count, 0)
    assert search(z, z, 1.0, WIDE) is None
    assert fit(z, z) is None


def test_pairs_in_one_spot():
    z = np.full(20, 5 + 5j)
    assert search(z, z, 1.0, WIDE) is None
    assert fit(z, z) is None
