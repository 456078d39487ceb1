"""The cloud read as VINS reads it: by position, as float32, frame after frame."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gps_denied_inference.errors import FrameError, InvalidParameterError, UnknownNameError
from gps_denied_inference.pipeline import feature_cloud
from gps_denied_inference.pipeline.camera import CameraModel
from gps_denied_inference.pipeline.feature_cloud import LAYOUTS, FeatureCloudBuilder
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.tracking.update import TrackUpdate

WIDTH, HEIGHT = 752, 480
K = [458.654, 0.0, 367.215, 0.0, 457.296, 248.375, 0.0, 0.0, 1.0]
LENSES = {
    "plumb_bob": [-0.2834, 0.07396, 0.00019, 1.76e-05, 0.0],
    "rational_polynomial": [0.5, 0.1, 1e-4, -2e-4, 0.01, 0.85, 0.2, 0.03],
    "equidistant": [-0.013, 0.0202, -0.0126, 0.0027],
}
STEP = 50_000_000
RNG = np.random.default_rng(0)
PIXELS = RNG.uniform((20, 20), (700, 440), (400, 2))


def lens(model="plumb_bob"):
    return CameraModel.from_info(model, K, LENSES[model], WIDTH, HEIGHT)


def update(ids, pixels, event="tracked", size=(WIDTH, HEIGHT)):
    pixels = np.asarray(pixels, np.float32).reshape(-1, 2)
    n = len(pixels)
    features = Features(
        pixels,
        np.linspace(1, 0.1, n, dtype=np.float32),
        np.zeros((n, 4), np.float32),
        *size,
        "xfeat",
        "aa",
        np.asarray(ids, np.uint64),
        np.ones(n, np.uint32),
    )
    return TrackUpdate(features, event, False, None, None, None, n, 0, True, 0, 0, {})


def flight(builder, frames):
    """Feed (ids, pixels, event); return the clouds."""
    return [builder.build(update(*f), i * STEP) for i, f in enumerate(frames)]


def channel(cloud, name):
    return dict(cloud.channels)[name]


@pytest.mark.parametrize("model", LENSES)
def test_points_project_back_to_the_tracked_pixels(model):
    ids = np.arange(400) + 1
    builder = FeatureCloudBuilder(lens(model), max_points=400, cell_size=1.0)
    first, cloud = flight(builder, [(ids, PIXELS - 2.0, "started"), (ids, PIXELS)])
    assert first is None  # in its first frame a point has no velocity, and VINS wants none of it
    assert len(cloud.points) > 350
    # float32, as the estimator gets it.
    back = lens(model).project(cloud.points[:, :2].astype(np.float64))
    uv = np.column_stack([channel(cloud, "u"), channel(cloud, "v")])
    assert np.linalg.norm(back - uv, axis=1).max() < 0.1
    assert (cloud.points[:, 2] == 1.0).all()
    np.testing.assert_allclose(uv, PIXELS[cloud.track_ids.astype(int) - 1], atol=1e-3)
    before = lens(model).undistort((PIXELS - 2.0).astype(np.float32))
    velocity = (cloud.points[:, :2] - before[cloud.track_ids.astype(int) - 1]) / (STEP * 1e-9)
    np.testing.assert_allclose(channel(cloud, "vx"), velocity[:, 0], atol=1e-4)
    np.testing.assert_allclose(channel(cloud, "vy"), velocity[:, 1], atol=1e-4)


def read_as_vins_mono(cloud):
    """Position of channels: 0 id (rounded, times cameras), 1 u, 2 v, 3 vx, 4 vy."""
    v = [values for _, values in cloud.channels]
    return {int(i + 0.5): tuple(row) for i, *row in zip(*v[:5], strict=True)}


def read_as_vins_fusion(cloud):
    """Position of channels: 0 id, 1 camera, 2 u, 3 v, 4 vx, 5 vy, and 6..8 where more than 5."""
    v = [values for _, values in cloud.channels]
    if len(v) > 5:
        assert all(len(v[n]) == len(cloud.points) for n in (6, 7, 8))
    assert (v[1] == 0).all()
    return {int(i): tuple(row) for i, *row in zip(v[0], *v[2:6], strict=True)}


@pytest.mark.parametrize(
    ("layout", "read"), [("vins_mono", read_as_vins_mono), ("vins_fusion", read_as_vins_fusion)]
)
def test_layouts_are_what_the_estimators_read(layout, read):
    ids, pixels = [7, 9], np.array([[100.0, 200.0], [300.0, 50.0]])
    builder = FeatureCloudBuilder(lens(), layout)
    _, cloud = flight(builder, [(ids, pixels, "started"), (ids, pixels + 1.0)])
    assert [name for name, _ in cloud.channels] == list(LAYOUTS[layout])
    assert all(values.dtype == np.float32 for _, values in cloud.channels)
    points = read(cloud)
    assert len(points) == 2
    assert sorted((u, v) for u, v, *_ in points.values()) == [(101.0, 201.0), (301.0, 51.0)]


def test_numbers_stay_and_have_no_holes():
    """As VINS counts: the n-th observation of a number is taken for n-1 frames after the first."""
    rng = np.random.default_rng(1)
    builder = FeatureCloudBuilder(lens(), max_points=120)
    alive, next_id, seen, step = {}, 1, {}, np.array([1.5, 0.5])
    for frame in range(40):
        alive = {i: p + step for i, p in alive.items() if rng.random() < 0.9}
        while len(alive) < 300:
            alive[next_id] = rng.uniform((20, 20), (650, 440))
            next_id += 1
        hidden = {i for i in alive if rng.random() < 0.1}  # tracks that coast
        ids = [i for i in alive if i not in hidden]
        event = "tracked" if frame else "started"
        cloud = builder.build(update(ids, [alive[i] for i in ids], event), frame * STEP)
        if cloud is None:
            continue
        assert len(cloud.points) <= 120
        numbers = channel(cloud, "id").astype(int).tolist()
        assert len(set(numbers)) == len(numbers)
        for number, track in zip(numbers, cloud.track_ids.tolist(), strict=True):
            frames, owner = seen.setdefault(number, ([], track))
            assert owner == track
            assert not frames or frames[-1] == frame - 1
            frames.append(frame)
    assert max(len(frames) for frames, _ in seen.values()) > 15


def test_new_points_are_spread():
    builder = FeatureCloudBuilder(lens(), max_points=400, cell_size=40.0)
    ids = np.arange(400)
    _, cloud = flight(builder, [(ids, PIXELS, "started"), (ids, PIXELS)])
    cells = {tuple(c) for c in (PIXELS // 40.0).astype(int).tolist()}
    assert len(cloud.points) == len(cells)
    # The best of each cell: features come in order of falling score.
    assert 0 in cloud.track_ids


@pytest.mark.parametrize("event", ["lost", "blank", "repeated"])
def test_a_frame_without_tracks_gives_no_cloud_and_breaks_no_track(event):
    ids, moved = [1, 2], [[100.0, 100.0], [300.0, 300.0]]
    other = {"lost": ([50, 51], moved), "blank": ([], []), "repeated": (ids, moved)}[event]
    builder = FeatureCloudBuilder(lens())
    clouds = flight(
        builder,
        [(ids, moved, "started"), (ids, moved), (*other, event), (ids, np.array(moved) + 4.0)],
    )
    assert clouds[2] is None
    np.testing.assert_array_equal(channel(clouds[1], "id"), channel(clouds[3], "id"))
    # The velocity spans both frames.
    expected = (clouds[3].points - clouds[1].points)[:, 0] / (2 * STEP * 1e-9)
    np.testing.assert_allclose(channel(clouds[3], "vx"), expected, rtol=1e-3)


@pytest.mark.parametrize("event", ["gap", "time_backwards", "started"])
def test_after_a_cut_numbers_are_new(event):
    ids, pixels = [1, 2], [[100.0, 100.0], [300.0, 300.0]]
    builder = FeatureCloudBuilder(lens())
    clouds = flight(
        builder,
        [(ids, pixels, "started"), (ids, pixels), ([3, 4], pixels, event), ([3, 4], pixels)],
    )
    assert clouds[2] is None
    assert not set(channel(clouds[1], "id")) & set(channel(clouds[3], "id"))


def test_numbers_wrap_before_float32_confuses_them(monkeypatch):
    monkeypatch.setattr(feature_cloud, "ID_LIMIT", 8)
    builder = FeatureCloudBuilder(lens(), cell_size=1.0)
    stays = (1, (50.0, 50.0))
    numbers = []
    for frame in range(12):
        ids = [stays[0], 10 + 2 * (frame // 2), 11 + 2 * (frame // 2)]
        pixels = [stays[1], (200.0, 100.0), (400.0, 300.0)]
        cloud = builder.build(update(ids, pixels, "tracked" if frame else "started"), frame * STEP)
        if cloud is not None:
            by_track = dict(zip(cloud.track_ids.tolist(), channel(cloud, "id"), strict=True))
            numbers.append(by_track[1])
            assert len(set(by_track.values())) == len(by_track)
            assert max(by_track.values()) < 8
    assert len(set(numbers)) == 1


def test_track_ids_beyond_float32_are_told_apart():
    big = 2**24 + 1
    ids, pixels = [big, big + 1], [[100.0, 100.0], [300.0, 300.0]]
    _, cloud = flight(FeatureCloudBuilder(lens()), [(ids, pixels, "started"), (ids, pixels)])
    assert len(set(channel(cloud, "id").tolist())) == 2
    assert cloud.track_ids.tolist() == ids


def test_refused():
    with pytest.raises(UnknownNameError, match="vins_mono"):
        FeatureCloudBuilder(lens(), "okvis")
    with pytest.raises(InvalidParameterError, match="max_points"):
        FeatureCloudBuilder(lens(), max_points=0)
    with pytest.raises(InvalidParameterError, match="cell_size"):
        FeatureCloudBuilder(lens(), cell_size=0.0)
    small = update([1], [[5.0, 5.0]], size=(640, 480))
    with pytest.raises(FrameError, match="752 x 480") as refusal:
        FeatureCloudBuilder(lens()).build(small, 0)
    assert refusal.value.reason == "camera_info_mismatch"


def test_points_without_a_ray_are_left_out():
    wide = CameraModel.from_info(
        "equidistant", [120, 0, 320, 0, 120, 240, 0, 0, 1], [0] * 4, 640, 480
    )
    ids, pixels = [1, 2], [[2.0, 2.0], [320.0, 240.0]]
    builder = FeatureCloudBuilder(wide)
    builder.build(update(ids, pixels, "started", (640, 480)), 0)
    cloud = builder.build(update(ids, pixels, "tracked", (640, 480)), STEP)
    assert cloud.track_ids.tolist() == [2]
    assert dataclasses.is_dataclass(cloud)


def test_a_pause_is_a_gap_and_gives_no_number_twice():
    ids = np.arange(40) + 1
    builder = FeatureCloudBuilder(lens("plumb_bob"), cell_size=1.0)
    _, before = flight(builder, [(ids, PIXELS[:40] - 2.0, "started"), (ids, PIXELS[:40])])
    builder.pause()
    first, after = flight(builder, [(ids, PIXELS[:40]), (ids, PIXELS[:40] + 1.0)])
    assert first is None
    assert not set(channel(before, "id")) & set(channel(after, "id"))
