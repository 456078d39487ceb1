"""What a frame is not asked for: pairs where the motion goes on, a model that nobody reads, and a
long search where there is nothing to find."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.pipeline import geometry
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.pipeline.tracking.tracker import TAKE_TURNS, IdSource, Tracker

SIZE = (320, 240)
STEP = 50_000_000  # ns
GROUND = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)


class Counting(MutualNearestNeighbour):
    """Counts how often it is asked for pairs."""

    def __init__(self):
        super().__init__(0.7)
        self.asked = 0

    def match(self, query, reference):
        self.asked += 1
        return super().match(query, reference)

    def match_some(self, query, reference, rows):
        self.asked += 1
        return super().match_some(query, reference, rows)


class Flight:
    """Ground that moves by whole px, with corners whose descriptors never change."""

    def __init__(self, geometry="homography"):
        self.matcher = Counting()
        self.tracker = Tracker(self.matcher, geometry, max_followed=4, ids=IdSource())
        corners = cv2.goodFeaturesToTrack(GROUND[100:500, 100:600], 400, 0.01, 8)[:, 0]
        self.corners = corners.astype(np.float64) + 100.0
        made = np.random.default_rng(1).normal(size=(len(corners), 64)).astype(np.float32)
        self.descriptors = made / np.linalg.norm(made, axis=1, keepdims=True)
        self.frames = 0

    def show(self, left, top):
        """Track the part of the ground that begins there."""
        image = np.ascontiguousarray(GROUND[top : top + SIZE[1], left : left + SIZE[0]])
        points = self.corners - (left, top)
        seen = ((points >= 10) & (points < np.array(SIZE) - 10)).all(axis=1)
        return self._update(image, points[seen], self.descriptors[seen])

    def show_noise(self):
        noise = np.random.default_rng(self.frames)
        image = noise.integers(0, 255, SIZE[::-1], np.uint8)
        made = noise.normal(size=(200, 64)).astype(np.float32)
        points = noise.uniform(10, 230, (200, 2))
        return self._update(image, points, made / np.linalg.norm(made, axis=1, keepdims=True))

    def _update(self, image, points, descriptors):
        self.frames += 1
        scores = np.linspace(1.0, 0.5, len(points)).astype(np.float32)
        features = Features(points.astype(np.float32), scores, descriptors, *SIZE, "xfeat", "aa")
        view = View.of(image, *SIZE, 400)
        return self.tracker.update(features, self.frames * STEP, None, view)


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_no_pairs_are_looked_for_while_the_motion_goes_on(model):
    flight = Flight(model)
    for frame in range(8):
        update = flight.show(150 + 5 * frame, 150)
    assert update.event == "tracked"
    assert update.continued > 60
    assert flight.matcher.asked == 1  # the second frame's: nothing was known of the motion yet
    # A motion that breaks off is looked for, and found.
    update = flight.show(150 + 5 * 7 + 40, 170)
    assert (update.event, flight.matcher.asked) == ("tracked", 2)
    assert update.continued > 60


def test_the_motion_is_foreseen_over_a_frame_that_shows_nothing():
    flight = Flight()
    for frame in range(4):
        flight.show(150 + 5 * frame, 150)
    asked = flight.matcher.asked
    flight.show_noise()
    update = flight.show(150 + 5 * 5, 150)
    assert update.event == "tracked"
    assert (update.features.track_ages >= 2).sum() > 60
    assert flight.matcher.asked > asked  # for the noise
    # Nor is it where a point would be after twice the way once only.
    truth = {tuple(p) for p in np.rint(flight.corners - (175, 150)).astype(int)}
    found = np.rint(update.features.keypoints[update.features.track_ages > 1]).astype(int)
    assert np.mean([tuple(p) in truth for p in found]) > 0.8


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_tracks_are_the_same_whether_anybody_reads_the_model_or_not(model, monkeypatch):
    judged = []
    judge = geometry.judged
    monkeypatch.setattr(geometry, "judged", lambda *a: judged.append(1) or judge(*a))
    ids = {}
    for read in (False, True):
        flight, ids[read] = Flight(model), []
        for frame in range(12):
            update = flight.show(120 + 12 * frame, 150 + frame)
            if read and frame > 2:
                assert update.geometry.confidence > 3.0
                assert update.geometry is update.geometry
            ids[read].append((update.is_keyframe, update.features.track_ids.tolist()))
        if not read:
            assert not judged
    assert judged
    assert ids[False] == ids[True]


def test_frames_that_cannot_be_tracked_take_turns():
    flight = Flight()
    for frame in range(3):
        flight.show(150 + 5 * frame, 150)
    asked = []
    for _ in range(TAKE_TURNS + 4):
        before = flight.matcher.asked
        assert flight.show_noise().event == "lost"
        asked.append(flight.matcher.asked - before)
    assert asked[TAKE_TURNS:] == [1] * 4
    # The last good frame comes up again in the next two, at the latest.
    assert "tracked" in [flight.show(165, 150).event, flight.show(170, 150).event]


def test_a_search_draws_no_more_samples_than_asked_for(monkeypatch):
    drawn = []

    def find(query, reference, params):
        drawn.append(params.maxIterations)
        return None, None

    monkeypatch.setattr(geometry.cv2, "findHomography", find)
    flight = Flight()
    flight.show(150, 150)
    flight.show(155, 150)
    assert drawn
    assert max(drawn) <= 1000
