"""Matches of successive answers, held against the true motion or against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gps_denied_inference.demo.score import Score, agreement
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import project
from gps_denied_inference.pipeline.matcher import Matches

SHIFT = np.array([[1.0, 0.0, 12.0], [0.0, 1.0, -5.0], [0.0, 0.0, 1.0]])


class Source:
    kind = "xfeat"
    name = "xfeat"
    note = ""

    def __init__(self, motion) -> None:
        self._motion = motion

    def __iter__(self):
        return iter(())

    def move(self, start: int, end: int, points):
        assert end == start + 1
        return None if self._motion is None else project(self._motion, points)

    def surfaces(self, index: int, points):
        """What lies right of the middle is a roof."""
        return (points[:, 0] > 225).astype(np.intp)


def features(points, codes) -> Features:
    """Features with one-hot descriptors, so that equal codes match and others do not."""
    descriptors = np.zeros((len(codes), 64), np.float32)
    descriptors[np.arange(len(codes)), codes] = 1.0
    return Features(
        np.asarray(points, np.float32).reshape(-1, 2),
        np.linspace(1, 0.5, len(codes), dtype=np.float32),
        descriptors,
        640,
        480,
        "xfeat",
        "00",
    )


def cloud(count: int = 40) -> np.ndarray:
    return np.random.default_rng(1).uniform(50, 400, (count, 2))


def test_agreement_ends_at_the_threshold() -> None:
    start = np.array([[10, 10], [20, 20], [30, 30]], np.float32)
    end = start + np.array([12, -5]) + np.array([[0, 2.99], [3.01, 0], [2.2, 2.2]])
    index = np.arange(3, dtype=np.int32)
    matches = Matches(index, index, np.ones(3, np.float32), start, end.astype(np.float32))
    assert agreement(matches, project(SHIFT, start)).tolist() == [True, False, False]


def test_the_share_counts_what_agrees_with_the_truth() -> None:
    points = cloud()
    codes = np.arange(40)
    moved = points + np.array([12, -5])
    moved[:10] += (0, 8)  # these ten match, but at the wrong place
    score = Score(Source(SHIFT))
    score.add(0, features(points, codes))
    assert math.isnan(score.agreeing_share)
    score.add(1, features(moved, codes))
    assert score.agreeing_share == 0.75
    summary = score.summary()
    assert summary["count"] == 40
    assert summary["pairs"] == 1
    assert summary["held_against"] == "true motion"


def test_shares_on_ground_and_on_roofs_are_told_apart() -> None:
    points = cloud()
    moved = points + np.array([12, -5])
    roof = points[:, 0] > 225
    moved[np.flatnonzero(roof)[:4]] += (0, 8)  # four on roofs match at the wrong place
    score = Score(Source(SHIFT))
    score.add(0, features(points, np.arange(40)))
    score.add(1, features(moved, np.arange(40)))
    summary = score.summary()
    assert summary["agreeing_share_on_ground"] == 1.0
    assert summary["agreeing_share_on_roofs"] == 1.0 - 4 / np.count_nonzero(roof)


def test_without_truth_matches_are_held_against_each_other_and_that_is_said() -> None:
    points = cloud()
    moved = points + np.array([12, -5])
    moved[:10] = cloud(50)[40:]  # ten that agree with nothing
    score = Score(Source(None))
    score.add(0, features(points, np.arange(40)))
    score.add(1, features(moved, np.arange(40)))
    assert score.agreeing_share == 0.75
    assert score.summary()["held_against"] == "best homography"


def test_frames_on_both_sides_of_a_dropped_one_are_no_pair() -> None:
    score = Score(Source(SHIFT))
    for index in (0, 1, 3, 4, 6):
        score.add(index, features(cloud(), np.arange(40)))
    assert score.summary()["pairs"] == 2
    assert len(score.counts) == 5


@pytest.mark.parametrize("motion", [SHIFT, None])
def test_frames_without_features_score_nothing(motion) -> None:
    score = Score(Source(motion))
    for index in range(3):
        score.add(index, features(np.zeros((0, 2)), np.zeros(0, int)))
    assert score.summary()["count"] == 0
    assert math.isnan(score.agreeing_share)
    assert score.shares == [0.0, 0.0]


def test_large_footage_without_truth_is_held_to_a_share_of_its_width() -> None:
    points = cloud()
    moved = points + np.array([12, -5])
    moved[:10] += np.array([0, 6])  # 6 px off: too far at 640 px of width, not at 1600
    for width, share in ((640, 0.75), (1600, 1.0)):
        score = Score(Source(None))
        for index, where in enumerate((points, moved)):
            score.add(index, replace(features(where, np.arange(40)), width=width))
        assert score.agreeing_share == share
        assert score.summary()["threshold_px"] == max(3.0, 0.005 * width)
