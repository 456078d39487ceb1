"""Tracks over a world of points whose truth is known: each point has a descriptor of its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gps_denied_inference import stream
from gps_denied_inference.errors import InvalidParameterError, UnknownNameError
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import project
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour
from gps_denied_inference.pipeline.tracking.tracker import IdSource, Tracker
from gps_denied_inference.pipeline.tracking.tracks import MAX_MISSED
from gps_denied_inference.pipeline.tracking.update import EVENTS
from gps_denied_inference.settings import Settings

STEP = 50_000_000  # ns between frames
WIDTH, HEIGHT = 640, 480


class World:
    """Points on a plane, seen through a homography that moves with time."""

    def __init__(self, seed=0, count=900):
        self.rng = np.random.default_rng(seed)
        self.points = self.rng.uniform((-200, -200), (900, 700), (count, 2))
        descriptors = self.rng.normal(size=(count, 32)).astype(np.float32)
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)

    def pose(self, time):
        angle, zoom = 0.01 * time, 1.0 + 0.05 * np.sin(0.2 * time)
        c, s = zoom * np.cos(angle), zoom * np.sin(angle)
        return np.array([[c, -s, -4.0 * time], [s, c, 2.0 * time], [1e-6 * time, 0, 1]])

    def see(self, time, seen=0.9, noise=0.4, swap=0):
        """Return features and which point each one is."""
        pixels = project(self.pose(time), self.points) + self.rng.normal(
            0, noise, self.points.shape
        )
        inside = ((pixels > 0) & (pixels < (WIDTH, HEIGHT))).all(axis=1)
        index = np.flatnonzero(inside & (self.rng.random(len(pixels)) < seen))
        self.rng.shuffle(index)
        owner = index.copy()
        if swap:  # descriptors exchanged between far points: every matcher falls for these
            owner[:swap] = np.roll(owner[:swap], 1)
        features = Features(
            pixels[index].astype(np.float32),
            np.linspace(1, 0.1, len(index)).astype(np.float32),
            self.descriptors[owner],
            WIDTH,
            HEIGHT,
            "xfeat",
            "aa",
        )
        return features, index


def blank(count=0):
    return Features(
        np.zeros((count, 2), np.float32),
        np.zeros(count, np.float32),
        np.eye(count, 32, dtype=np.float32),
        WIDTH,
        HEIGHT,
        "xfeat",
        "aa",
    )


def make(model="homography", **options):
    return Tracker(MutualNearestNeighbour(), model, 3.0, ids=IdSource(), **options)


def check_accounts(update, waiting=0):
    """Every track that was started is in the frame, coasts, waits for the scene, or was cut."""
    alive = update.features.count + update.coasting + waiting
    assert update.counters["tracks_started"] - update.counters.get("tracks_cut", 0) == alive


@pytest.mark.parametrize("model", ["homography", "fundamental"])
def test_an_id_stays_with_its_point(model):
    world, tracker, owner = World(), make(model), {}
    for time in range(40):
        features, index = world.see(time, swap=30)
        update = tracker.update(features, time * STEP, tag=time)
        ids = update.features.track_ids.tolist()
        assert len(set(ids)) == len(ids)
        assert update.event == ("tracked" if time else "started")
        truth = project(world.pose(time), world.points)
        for track, point in zip(ids, index.tolist(), strict=True):
            # Of two points closer than the threshold and the noise, no matcher can tell which.
            assert np.linalg.norm(truth[owner.setdefault(track, point)] - truth[point]) < 6.0
        check_accounts(update)
    ages = update.features.track_ages
    assert ages.max() > 20
    # Nine in ten are seen again, one in nine of those with a wrong descriptor.
    assert np.mean(ages > 0) > 0.7
    assert update.continued == np.count_nonzero(ages)


@pytest.mark.parametrize("model", ["homography", "fundamental"])
@pytest.mark.parametrize(("guided_cosine", "goes_on"), [(0.75, True), (0.85, False)])
def test_how_alike_a_feature_in_the_right_place_must_be_is_the_networks(
    model, guided_cosine, goes_on
):
    """Thirty descriptors change by 37 degrees: too much for the matcher, not for every network."""
    world, tracker = World(), make(model, guided_cosine=guided_cosine)
    first, index = world.see(0, seen=1.0, noise=0.1)
    before = tracker.update(first, 0).features
    ids = dict(zip(index.tolist(), before.track_ids.tolist(), strict=True))
    second, index = world.see(1, seen=1.0, noise=0.1)
    other = world.rng.normal(size=(30, 32)).astype(np.float32)
    kept = second.descriptors[:30]
    other -= (other * kept).sum(axis=1, keepdims=True) * kept
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    second.descriptors[:30] = 0.8 * kept + 0.6 * other
    after = tracker.update(second, STEP).features.track_ids[:30]
    same = [ids.get(point) == track for point, track in zip(index, after.tolist(), strict=False)]
    assert sum(same) >= 25 if goes_on else not any(same)


@pytest.mark.parametrize(
    ("network", "expected"), [("xfeat", 0.85), ("aliked-t16", 0.75), ("aliked-n16rot", 0.75)]
)
def test_each_network_brings_its_own(monkeypatch, network, expected):
    made = []
    monkeypatch.setattr(stream, "Tracker", lambda **options: made.append(options))
    asked = Settings.from_mapping({"task": "track", "model": network})
    stream.CameraStream(asked, MutualNearestNeighbour())
    assert made[0]["guided_cosine"] == expected


def test_a_track_that_drifted_begins_anew_in_every_respect():
    """Fundamental: what the key frame does not confirm gets a fresh id, place and budget."""
    world, drifted = World(), 0
    tracker = make("fundamental", keyframe_motion=9.0, keyframe_share=0.02)
    for time in range(75):
        features, index = world.see(time, seen=1.0, noise=0.1)
        for first, way in ((0, (0.6, 0.8)), (1, (-0.8, 0.6)), (2, (1.0, 0.0))):
            features.keypoints[index % 20 == first] += np.float32(0.09 * time) * np.float32(way)
        update = tracker.update(features, time * STEP)
        if update.geometry is None:
            continue
        off = update.matches_to_keyframe.query_indices[~update.geometry.inliers]
        drifted += len(off)
        tracks = tracker._newest.tracks
        np.testing.assert_array_equal(tracks.ages[off], 0)
        np.testing.assert_array_equal(tracks.followed[off], 0)
        np.testing.assert_array_equal(tracks.parallax[off], 0.0)
        np.testing.assert_array_equal(tracks.places[off], features.keypoints[off])
        assert not np.isin(tracks.ids[features.count :], tracks.ids[: features.count]).any()
        check_accounts(update)
    assert drifted  # so that the checks above had something to check


def test_without_a_check_ids_do_jump():
    """The test above would see a jump: with geometry switched off there are plenty."""
    world, tracker, owner, jumps = World(), make("none"), {}, 0
    for time in range(10):
        features, index = world.see(time, swap=30)
        ids = tracker.update(features, time * STEP).features.track_ids
        truth = project(world.pose(time), world.points)
        for track, point in zip(ids.tolist(), index.tolist(), strict=True):
            jumps += np.linalg.norm(truth[owner.setdefault(track, point)] - truth[point]) > 6.0
    assert jumps > 50


def test_no_id_is_given_twice_and_ages_count_frames():
    world, tracker, seen_at, longest = World(), make(), {}, 0
    for time in range(30):
        features, _ = world.see(time, seen=0.7)
        update = tracker.update(features, time * STEP)
        ages = update.features.track_ages.tolist()
        for track, age in zip(update.features.track_ids.tolist(), ages, strict=True):
            assert (track in seen_at) == (age > 0)
            then, age_then = seen_at.get(track, (time, age))
            assert time - then == age - age_then <= MAX_MISSED + 1
            longest = max(longest, time - then)
            seen_at[track] = (time, age)
    assert update.features.track_ids.dtype == np.uint64
    assert update.features.track_ages.dtype == np.uint32
    assert longest == MAX_MISSED + 1


def test_a_point_that_is_missed_keeps_its_id():
    world, tracker = World(), make()
    everything = [world.see(t, seen=1.0, noise=0.2) for t in range(8)]
    point = int(everything[0][1][0])

    def track_of_the_point(time):
        features, index = everything[time]
        update = tracker.update(features, time * STEP)
        return int(update.features.track_ids[index == point][0])

    before = [track_of_the_point(t) for t in (0, 1)]
    for time in (2, 3, 4):
        features, index = everything[time]
        hide = index != point
        parts = [a[hide] for a in (features.keypoints, features.scores, features.descriptors)]
        tracker.update(Features(*parts, WIDTH, HEIGHT, "xfeat", "aa"), time * STEP)
    assert [track_of_the_point(t) for t in (5, 6)] == before


def test_ids_outlive_the_tracker():
    world = World()
    seen = set()
    for _ in range(3):  # as a node that is configured again
        tracker = Tracker(MutualNearestNeighbour())
        for time in range(3):
            features, _ = world.see(time)
            update = tracker.update(features, time * STEP)
            new = update.features.track_ids[update.features.track_ages == 0].tolist()
            assert not seen.intersection(new)
            seen.update(new)
        tracker.reset()


def test_a_walk_to_neighbours_is_cut():
    """Each step passes the threshold; only the way so far shows that the point has changed."""
    world, tracker = World(count=300), make()
    features, index = world.see(0, seen=1.0, noise=0.1)
    walker = int(index[0])
    first = None
    for time in range(8):
        features, index = world.see(time, seen=1.0, noise=0.1)
        at = int(np.flatnonzero(index == walker)[0])
        features.keypoints[at] += (2.0 * time, 0.0)
        update = tracker.update(features, time * STEP)
        track = int(update.features.track_ids[at])
        first = track if first is None else first
        last = track
    assert last != first


def run(tracker, script):
    """Feed (features, stamp in frames) pairs; return the updates."""
    return [tracker.update(f, round(stamp * STEP), tag=stamp) for f, stamp in script]


def kept(before, after):
    return len(set(before.features.track_ids.tolist()) & set(after.features.track_ids.tolist()))


@pytest.mark.parametrize("count", [0, 5, 11])
def test_a_blank_frame_is_bridged(count):
    world = World()
    updates = run(
        make(),
        [(world.see(0)[0], 0), (world.see(1)[0], 1), (blank(count), 2), (world.see(3)[0], 3)],
    )
    assert [u.event for u in updates] == ["started", "tracked", "blank", "tracked"]
    assert kept(updates[1], updates[3]) > 100
    assert updates[2].features.count == count
    assert updates[2].continued == 0
    check_accounts(updates[3])


def test_a_blurred_frame_is_bridged():
    """Blur leaves features, but none that match."""
    world, other = World(), World(seed=99)
    updates = run(make(), [(world.see(0)[0], 0), (other.see(0)[0], 1), (world.see(2)[0], 2)])
    assert [u.event for u in updates] == ["started", "lost", "tracked"]
    assert kept(updates[0], updates[2]) > 100
    assert kept(updates[0], updates[1]) == kept(updates[1], updates[2]) == 0
    check_accounts(updates[1], updates[0].features.count)
    check_accounts(updates[2])


def test_a_scene_cut_starts_over_in_the_new_scene():
    world, other = World(), World(seed=99)
    updates = run(make(), [(world.see(0)[0], 0), *[(other.see(t)[0], t) for t in range(1, 4)]])
    assert [u.event for u in updates] == ["started", "lost", "tracked", "tracked"]
    assert kept(updates[1], updates[3]) > 100
    assert updates[2].is_keyframe
    check_accounts(updates[3])


def test_a_repeated_frame_changes_nothing():
    world = World()
    first, second = world.see(0)[0], world.see(1)[0]
    updates = run(make(), [(first, 0), (second, 1), (second, 1), (second, 2), (world.see(3)[0], 3)])
    assert [u.event for u in updates] == ["started", "tracked", "repeated", "repeated", "tracked"]
    for again in updates[2:4]:
        np.testing.assert_array_equal(again.features.track_ids, updates[1].features.track_ids)
        np.testing.assert_array_equal(again.features.track_ages, updates[1].features.track_ages)
    assert kept(updates[1], updates[4]) > 100
    assert updates[4].features.track_ages.max() == 2


@pytest.mark.parametrize("stamp", [1.0, 0.5, -100.0])
def test_time_that_does_not_go_on_cuts_every_track(stamp):
    world = World()
    updates = run(make(), [(world.see(0)[0], 0), (world.see(1)[0], 1), (world.see(2)[0], stamp)])
    assert updates[2].event == "time_backwards"
    assert kept(updates[1], updates[2]) == 0
    assert updates[2].is_keyframe
    assert updates[2].matches_to_keyframe is None
    check_accounts(updates[2])


def test_a_gap_cuts_every_track_but_still_matches_the_key_frame():
    world = World()
    updates = run(make(max_gap=1.0), [(world.see(0)[0], 0), (world.see(1)[0], 1 + 1.001e9 / STEP)])
    assert updates[1].event == "gap"
    assert kept(*updates) == 0
    assert updates[1].matches_to_keyframe.count > 100
    assert updates[1].geometry.inlier_count > 100
    assert updates[1].keyframe_tag == 0
    assert updates[1].is_keyframe


def test_blank_frames_do_not_stretch_the_gap():
    world = World()
    script = [(world.see(0)[0], 0), *[(blank(), t) for t in range(1, 30)], (world.see(1)[0], 30)]
    updates = run(make(max_gap=1.0), script)
    assert updates[-1].event == "gap"
    check_accounts(updates[-1])


def test_key_frames_follow_motion_and_what_is_left_of_them():
    world, tracker, keyframes = World(), make(), []
    for time in range(75):
        update = tracker.update(world.see(time, seen=0.97)[0], time * STEP, tag=time)
        if update.matches_to_keyframe is not None:
            assert update.keyframe_tag == keyframes[-1]
            pairs = update.matches_to_keyframe
            np.testing.assert_array_equal(
                update.keyframe_features.track_ids[pairs.reference_indices],
                update.features.track_ids[pairs.query_indices],
            )
            truth = world.pose(keyframes[-1]) @ np.linalg.inv(world.pose(time))
            good = project(truth, pairs.query_points.astype(float)) - pairs.reference_points
            assert np.median(np.linalg.norm(good, axis=1)) < 1.5
            assert update.geometry.inliers.mean() > 0.9
        if update.is_keyframe:
            keyframes.append(time)
    assert 3 <= len(keyframes) <= 20
    assert update.counters["keyframes"] == len(keyframes)


def test_reset_forgets_frames_but_not_ids():
    world, tracker = World(), make()
    first = tracker.update(world.see(0)[0], 0)
    tracker.reset()
    again = tracker.update(world.see(1)[0], STEP)
    assert again.event == "started"
    assert kept(first, again) == 0
    check_accounts(again)


def test_options_out_of_bounds():
    with pytest.raises(UnknownNameError, match="affine"):
        make("affine")
    with pytest.raises(InvalidParameterError, match="max_gap"):
        make(max_gap=0.0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(["see", "blank", "other", "again"]), st.integers(-3, 30)),
        min_size=1,
        max_size=12,
    )
)
def test_no_sequence_of_frames_breaks_the_promises(script):
    world, other, tracker = World(count=150), World(seed=5, count=150), make()
    stamp, features, last_seen = 0, blank(), {}
    for step, (what, delta) in enumerate(script):
        stamp += delta * STEP
        if what != "again":
            source = {"see": world, "other": other}.get(what)
            features = blank(3) if source is None else source.see(step)[0]
        update = tracker.update(features, stamp)
        ids, ages = update.features.track_ids.tolist(), update.features.track_ages.tolist()
        assert len(set(ids)) == len(ids) == features.count
        for track, age in zip(ids, ages, strict=True):
            if update.event != "repeated":
                assert (track in last_seen) == (age > 0)
                assert age == 0 or last_seen[track] < age
            last_seen[track] = age
        assert sum(update.counters.get(e, 0) for e in EVENTS) == step + 1
        assert update.counters["tracks_started"] >= update.counters.get("tracks_cut", 0)
        assert (update.matches_to_keyframe is None) == (update.keyframe_features is None)


def test_ids_are_unique_across_threads():
    from concurrent.futures import ThreadPoolExecutor

    source = IdSource()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(source.take, [100] * 50))
    ids = list(itertools.chain.from_iterable(p.tolist() for p in parts))
    assert len(set(ids)) == len(ids) == 5000
