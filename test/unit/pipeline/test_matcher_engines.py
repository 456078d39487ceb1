"""Matcher engines on ONNX Runtime's CPU, on features of the simulated flight."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.geometry import project, verify
from gps_denied_inference.pipeline.matcher import EngineMatcher, MutualNearestNeighbour
from gps_denied_inference.pipeline.tracking.tracker import Tracker
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig

FRAMES = (0, 1, 2)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    runtime = create_runtime("onnxruntime", cache=EngineCache(tmp_path_factory.mktemp("engines")))
    handles = []

    def load(name, max_keypoints, **changes):
        config = BuildConfig(max_keypoints=max_keypoints, warmup_iterations=1, threads=2, **changes)
        handle = runtime.deserialize_engine(runtime.compile_engine(zoo.resolve(name), config))
        handles.append(handle)
        return runtime, handle

    yield load
    for handle in handles:
        runtime.release_engine(handle)


@pytest.fixture(scope="module")
def flight(load):
    """Three frames with 400 keypoints at most."""
    simulated, extractor = SimulatedFlight(frames=len(FRAMES)), Extractor(*load("xfeat", 400))
    frames = [
        extractor.extract(cv2.cvtColor(simulated.render(i), cv2.COLOR_RGB2GRAY)) for i in FRAMES
    ]
    return simulated, frames


def listed(matches):
    return zip(matches.query_indices.tolist(), matches.reference_indices.tolist(), strict=True)


def pairs(matches):
    return set(listed(matches))


@pytest.mark.parametrize("min_cosine", [-1.0, 0.5, 0.82])
def test_nearest_neighbours_are_those_of_opencv(flight, min_cosine):
    _, (first, second, _) = flight
    ours = MutualNearestNeighbour(min_cosine).match(second, first)
    theirs = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(
        second.descriptors, first.descriptors
    )
    # Of unit vectors, the squared distance is 2 - 2 cosine.
    likeness = {(m.queryIdx, m.trainIdx): 1.0 - m.distance**2 / 2.0 for m in theirs}
    kept = {pair for pair, cosine in likeness.items() if cosine >= min_cosine}
    assert ours.count > 50
    # Two descriptors of nearly equal cosine may change places by rounding.
    assert len(pairs(ours) ^ kept) <= 0.01 * ours.count
    scores = dict(zip(listed(ours), ours.scores.tolist(), strict=True))
    common = sorted(pairs(ours) & kept)
    np.testing.assert_allclose(
        [scores[pair] for pair in common],
        np.clip([likeness[pair] for pair in common], 0.0, 1.0),
        atol=1e-4,
    )


def test_lighterglue_finds_the_true_motion(load, flight):
    simulated, (first, second, _) = flight
    matches = EngineMatcher(*load("lighterglue", 400)).match(second, first)
    truth = project(simulated.motion(1, 0), matches.query_points.astype(np.float64))
    right = np.linalg.norm(truth - matches.reference_points, axis=1) < 3.0
    assert matches.count > 50
    assert right.mean() > 0.8
    assert ((matches.scores > 0.0) & (matches.scores <= 1.0)).all()
    model = verify(matches, "homography", 3.0)
    assert model is not None
    assert model.inliers[right].mean() > 0.9


def test_several_pairs_are_matched_as_each_alone(load, flight):
    """More pairs than the engine takes at a time, sets of other lengths, one of them empty."""
    _, (first, second, third) = flight
    few, none = (
        dataclasses.replace(
            first, keypoints=first.keypoints[:n], scores=first.scores[:n],
            descriptors=first.descriptors[:n],
        )
        for n in (150, 0)
    )  # fmt: skip
    chosen = [(second, first), (first, third), (none, first), (few, second), (third, second)]
    unpruned = {"options": {"pruning": "off"}}
    alone = EngineMatcher(*load("lighterglue", 400, **unpruned))
    several = EngineMatcher(*load("lighterglue", 400, batch=3, **unpruned))
    assert (alone.batch, several.batch) == (1, 3)
    for matcher in (alone, several):
        found = matcher.match_several(chosen)
        for (query, reference), got in zip(chosen, found, strict=True):
            wanted = alone.match(query, reference)
            assert pairs(got) == pairs(wanted)
            np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-3)
            np.testing.assert_array_equal(got.query_points, wanted.query_points)
        assert [each.count > 30 for each in found] == [True, True, False, True, True]
    assert several.match_several([]) == []
    assert pairs(several.match(second, first)) == pairs(alone.match(second, first))


def test_tracks_run_on_a_matcher_engine(load, flight):
    _, frames = flight
    tracker = Tracker(EngineMatcher(*load("lighterglue", 400)))
    updates = [tracker.update(frame, i * 50_000_000) for i, frame in enumerate(frames)]
    assert [update.event for update in updates] == ["started", "tracked", "tracked"]
    assert updates[2].continued > 50
