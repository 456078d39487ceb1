"""Following points in images: moved by a known amount, scaled, hidden, and out of view."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour
from gps_denied_inference.pipeline.tracking.flow import MOST_FOR_MOTION, View, see_motion
from gps_denied_inference.pipeline.tracking.patches import Patches
from gps_denied_inference.pipeline.tracking.tracker import IdSource, Tracker

SIZE = (320, 240)
STEP = 50_000_000  # ns


def ground(shift=(0.0, 0.0), factor=1):
    """Real ground from above, moved right and down by px, and enlarged."""
    scene = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    width, height = SIZE
    move = np.float64([[factor, 0, factor * (shift[0] - 200.5) - 0.5 * (1 - factor)],
                       [0, factor, factor * (shift[1] - 200.5) - 0.5 * (1 - factor)]])  # fmt: skip
    return cv2.warpAffine(scene, move, (factor * width, factor * height), flags=cv2.INTER_CUBIC)


def corners(image, count=150):
    """Corners well inside the image, (N, 2) px."""
    mask = np.zeros_like(image)
    mask[30:-30, 30:-30] = 255
    return cv2.goodFeaturesToTrack(image, count, 0.01, 8, mask=mask)[:, 0].astype(np.float64)


def features(points, descriptors, size=SIZE):
    scores = np.linspace(1.0, 0.5, len(points)).astype(np.float32)
    return Features(points.astype(np.float32), scores, descriptors, *size, "xfeat", "aa")


def descriptors_of(count):
    made = np.random.default_rng(1).normal(size=(count, 64)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def find(before, now, points, expected):
    """Find points of one view in another one: (N, 2) px, and which were found."""
    patches = Patches.cut(before.smooth, before.to_grey(points))
    found, ok = patches.find(now.smooth, now.to_grey(expected))
    return now.to_received(found), ok


@pytest.mark.parametrize("factor", [1, 2])
def test_points_are_found_to_a_twentieth_of_a_pixel(factor):
    """Also where the received image is larger than the engine's, in px of the received one."""
    before, now = (ground(s, factor) for s in ((0.0, 0.0), (3.3, -1.7)))
    views = [View.of(image, *SIZE, 100) for image in (before, now)]
    assert views[0].grey.shape == SIZE[::-1]
    points = corners(before)
    truth = points + factor * np.array([3.3, -1.7])
    found, ok = find(*views, points, truth + factor * np.array([0.7, -0.6]))
    assert ok.mean() > 0.95
    errors = np.linalg.norm(found - truth, axis=1)[ok]
    assert np.median(errors) < 0.05 * factor
    assert np.percentile(errors, 95) < 0.2 * factor


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (0.6, 40.0), (1.2, -10.0)])
def test_a_patch_is_found_turned_scaled_and_in_other_light(gain, offset):
    before = ground()
    angle, zoom = np.radians(25.0), 1.2
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array([150.0, 120.0]) - turn @ np.array([150.0, 120.0])
    now = cv2.warpAffine(before, np.column_stack([turn, shift]), SIZE, flags=cv2.INTER_CUBIC)
    now = np.clip(gain * now + offset, 0, 255).astype(np.uint8)
    points = corners(before)
    truth = points @ turn.T + shift
    seen = ((truth > 12) & (truth < np.array(SIZE) - 12)).all(axis=1)
    points, truth = points[seen], truth[seen]
    before, now = (View.of(image, *SIZE, 100).smooth for image in (before, now))
    patches = Patches.cut(before, points.astype(np.float32))
    turned = patches.moved(np.tile(turn.astype(np.float32), (len(points), 1, 1)))
    start = (truth + np.array([0.6, -0.5])).astype(np.float32)
    found, ok = turned.find(now, start)
    assert ok.mean() > 0.95
    assert np.median(np.linalg.norm(found - truth, axis=1)[ok]) < 0.06
    # Without the turn the patch is another one, so that the check above can fail.
    assert patches.find(now, start)[1].mean() < 0.5


def test_what_is_hidden_flat_or_out_of_view_is_not_found():
    before, now = ground(), ground((4.0, 0.0))
    points = corners(before)
    hidden = now.copy()
    hidden[:, 160:] = np.random.default_rng(0).integers(0, 255, hidden[:, 160:].shape)
    moved = points + np.array([4.0, 0.0])
    view = View.of(before, *SIZE, 9)
    _, ok = find(view, View.of(hidden, *SIZE, 9), points, moved)
    left, right = moved[:, 0] < 150, moved[:, 0] > 170
    assert ok[left].mean() > 0.95
    assert ok[right].mean() < 0.05
    _, ok = find(view, View.of(now, *SIZE, 9), points, moved + 300.0)
    assert not ok.any()
    flat = View.of(np.full(SIZE[::-1], 90, np.uint8), *SIZE, 9)
    assert not find(flat, flat, points, points)[1].any()
    nothing = np.empty((0, 2))
    assert find(view, View.of(now, *SIZE, 9), nothing, nothing)[1].size == 0


def test_a_view_is_grey_and_keeps_its_image():
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    view = View.of(image, *SIZE, 5)
    np.testing.assert_array_equal(view.grey, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    mono = np.ascontiguousarray(image[:, :, 0])
    view, copy = View.of(mono, *SIZE, 5), mono.copy()
    mono[:] = 0
    np.testing.assert_array_equal(view.grey, copy)


def fly(seen, room=150, max_followed=3):
    """Track corners of moving ground; ``seen(frame)`` tells which are detected."""
    points = corners(ground())
    descriptors = descriptors_of(len(points))
    tracker = Tracker(MutualNearestNeighbour(), max_followed=max_followed, ids=IdSource())
    updates = []
    for frame in range(9):
        shift = np.array([2.0, 1.0]) * frame
        at = np.flatnonzero(seen(frame, len(points)))
        detected = features(points[at] + shift, descriptors[at])
        view = View.of(ground(shift), *SIZE, room)
        updates.append(tracker.update(detected, frame * STEP, None, view))
    return points, updates


def where(update, track):
    return update.features.keypoints[update.features.track_ids == track]


def test_a_point_is_followed_for_so_many_frames_and_no_longer():
    """Point 0 is detected in the first two frames alone."""
    points, updates = fly(lambda frame, count: (np.arange(count) > 0) | (frame < 2))
    track = int(updates[1].features.track_ids[0])
    for frame in (2, 3, 4):
        assert updates[frame].followed >= 1
        truth = points[0] + np.array([2.0, 1.0]) * frame
        np.testing.assert_allclose(where(updates[frame], track), truth[None], atol=0.5)
    for frame in (5, 6, 7, 8):
        assert len(where(updates[frame], track)) == 0


def test_a_detection_renews_a_followed_track():
    _, updates = fly(lambda frame, count: (np.arange(count) > 0) | (frame in (0, 1, 4, 8)))
    track = int(updates[0].features.track_ids[0])
    assert all(len(where(update, track)) == 1 for update in updates)
    index = int(np.flatnonzero(updates[8].features.track_ids == track)[0])
    assert updates[8].features.track_ages[index] == 8
    scores = updates[8].features.scores
    assert (np.diff(scores) <= 0).all()


def test_followed_points_never_exceed_the_room():
    def seen(frame, count):
        return np.arange(count) % 3 != frame % 3

    points, updates = fly(seen, room=100)
    assert len(points) > 120
    for update in updates[1:]:
        assert update.features.count <= 100
        ids = update.features.track_ids.tolist()
        assert len(set(ids)) == len(ids)
        alive = update.counters["tracks_started"] - update.counters.get("tracks_cut", 0)
        assert alive == update.features.count + update.coasting
    assert sum(update.followed for update in updates) > 100


def test_without_a_view_nothing_is_followed():
    points = corners(ground())
    descriptors = descriptors_of(len(points))
    tracker = Tracker(MutualNearestNeighbour(), max_followed=8, ids=IdSource())
    for frame in range(3):
        at = np.arange(len(points)) % 3 != frame % 3
        update = tracker.update(features(points[at], descriptors[at]), frame * STEP)
        assert update.followed == 0
        assert update.features.count == np.count_nonzero(at)


def test_motion_is_seen_without_any_hint():
    """Most points that moved by 40 px, more than twice the patch's side, are found."""
    before, now = ground(), ground((32.0, -24.0))
    points = corners(before)
    seen = see_motion(
        View.of(before, *SIZE, 9),
        View.of(now, *SIZE, 9),
        features(points, descriptors_of(len(points))),
    )
    assert seen.count > 0.5 * len(points)
    np.testing.assert_array_equal(seen.query_indices, seen.reference_indices)
    np.testing.assert_allclose(seen.reference_points, points[seen.reference_indices], atol=1e-4)
    errors = np.linalg.norm(seen.query_points - seen.reference_points - (32.0, -24.0), axis=1)
    assert np.median(errors) < 0.1


def test_motion_is_seen_in_a_sample_of_many_points():
    image = ground()
    points = np.random.default_rng(3).uniform(30, 200, (1000, 2))
    seen = see_motion(
        View.of(image, *SIZE, 9), View.of(image, *SIZE, 9), features(points, np.eye(1000, 8))
    )
    assert MOST_FOR_MOTION / 2 <= seen.count <= MOST_FOR_MOTION
    assert seen.query_indices.min() < 50
    assert seen.query_indices.max() > 950


class Between:
    """Moving ground, of which only some frames are detected."""

    def __init__(self, **options):
        self.points = corners(ground())
        self.descriptors = descriptors_of(len(self.points))
        self.tracker = Tracker(
            MutualNearestNeighbour(), **{"max_followed": 3, **options}, ids=IdSource()
        )

    @staticmethod
    def shift(frame):
        return np.array([2.0, 1.0]) * frame

    def view(self, frame):
        return View.of(ground(self.shift(frame)), *SIZE, 200)

    def detect(self, frame, view=None):
        seen = features(self.points + self.shift(frame), self.descriptors)
        view = self.view(frame) if view is None else view
        return self.tracker.update(seen, frame * STEP, frame, view)

    def follow(self, frame, view=None, stamp=None):
        view = self.view(frame) if view is None else view
        return self.tracker.follow(view, frame * STEP if stamp is None else stamp, frame)


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_frames_between_detections_keep_ids_on_their_points(model):
    flight = Between(geometry=model)
    first = flight.detect(0)
    at = dict(zip(first.features.track_ids.tolist(), flight.points, strict=True))
    for frame in range(1, 9):
        update = flight.detect(frame) if frame % 3 == 0 else flight.follow(frame)
        assert update.event == "tracked"
        assert update.detected == (frame % 3 == 0)
        assert (update.keyframe_tag, update.is_keyframe) == (0, False)
        assert update.geometry.inlier_count > 0.9 * update.matches_to_keyframe.count
        ids = update.features.track_ids.tolist()
        going_on = [i for i, track in enumerate(ids) if track in at]
        assert len(going_on) > 0.9 * len(at)
        truth = np.array([at[ids[i]] for i in going_on]) + flight.shift(frame)
        errors = np.linalg.norm(update.features.keypoints[going_on] - truth, axis=1)
        assert errors.max() < 0.6
        assert (update.features.track_ages[going_on] == frame).all()
        assert (np.diff(update.features.scores) <= 0).all()
        alive = update.counters["tracks_started"] - update.counters.get("tracks_cut", 0)
        assert alive == update.features.count + update.coasting
        if not update.detected:
            assert update.followed == update.continued == update.features.count
    assert update.counters["followed_frames"] == 6
    assert update.counters["tracked"] == 8


def test_no_track_is_followed_for_longer_than_allowed():
    flight = Between(max_followed=2)
    flight.detect(0)
    assert flight.follow(1) is not None
    assert flight.follow(2) is not None
    assert flight.follow(3) is None
    assert flight.detect(3).event == "tracked"


def test_the_same_image_again_is_a_repeated_frame_at_whatever_time():
    flight = Between()
    flight.detect(0)
    one = flight.follow(1)
    for stamp in (STEP, 2 * STEP):
        again = flight.follow(1, stamp=stamp)
        assert (again.event, again.detected) == ("repeated", False)
        np.testing.assert_array_equal(again.features.track_ids, one.features.track_ids)
        np.testing.assert_array_equal(again.features.track_ages, one.features.track_ages)


def blank_frame(flight):
    nothing = features(np.zeros((0, 2)), np.zeros((0, 64), np.float32))
    flight.tracker.update(nothing, STEP, None, View.of(np.zeros(SIZE[::-1], np.uint8), *SIZE, 9))


def noise():
    return View.of(np.random.default_rng(0).integers(0, 255, SIZE[::-1], np.uint8), *SIZE, 200)


@pytest.mark.parametrize(
    ("options", "before", "view", "stamp"),
    [
        pytest.param({}, lambda flight: flight.tracker.reset(), None, 2, id="no frame yet"),
        pytest.param({}, blank_frame, None, 2, id="newest frame is blank"),
        pytest.param({}, None, None, 0, id="time stands still"),
        pytest.param({}, None, None, -1, id="time goes backwards"),
        pytest.param({"max_gap": 0.04}, None, None, 1, id="too long ago"),
        pytest.param({}, None, noise(), 1, id="another scene"),
        pytest.param({}, None, View.of(ground((2, 1)), 160, 128, 9), 1, id="another size"),
        pytest.param({"max_followed": 0}, None, None, 1, id="not allowed"),
        pytest.param({"geometry": "none"}, None, None, 1, id="without a check"),
    ],
)
def test_a_frame_that_only_a_detection_can_tell_changes_nothing(options, before, view, stamp):
    flight = Between(**options)
    first = flight.detect(0)
    if before is not None:
        before(flight)
    counters = dict(flight.tracker.counters)
    assert flight.follow(3, view, stamp * STEP) is None
    assert flight.tracker.counters == counters
    update = flight.detect(3)
    expected = {"max_gap": "gap"}.get(next(iter(options), ""), "tracked")
    if before is not None and before is not blank_frame:
        expected = "started"
    assert update.event == expected
    assert "followed_frames" not in update.counters
    if expected == "tracked":
        assert np.isin(update.features.track_ids, first.features.track_ids).mean() > 0.9
