"""The contest between trackers: its scenes, its stand-in of VINS-Fusion's, and its table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.klt import END, START, Klt, Record, write_page
from benchmarks.track_scenes import flight, roofs


@pytest.mark.parametrize("count", [40, 200])
def test_klt_follows_ground_that_moves(count):
    scene, klt, record = roofs(0.0, 5, 4), Klt(count, 8), Record()
    for frame, image in enumerate(scene.images):
        ids, points = klt.track(image)
        assert len(set(ids.tolist())) == len(ids) <= count
        record.add(frame, (ids, points), 0.001)
    figures = record.figures(scene)
    assert figures["within_2_px_for_life"] > 0.95
    assert figures["error_px_median"] < 0.1
    assert figures["length_mean"] > 2.5


@pytest.mark.parametrize("scene", [flight(120, 3, 1, True), roofs(1.2, 5, 3)])
def test_a_scene_tells_right_from_wrong(scene):
    """Points that stay where they were are wrong by the ground's motion at least."""
    points = np.random.default_rng(0).uniform((200, 40), (600, 440), (300, 2))
    errors = scene.errors(0, 2, points, points)
    known = ~np.isnan(errors)
    assert 20 < np.count_nonzero(known) < 300  # those near an edge are not
    moved = points[known] + 100.0
    assert errors[known].min() > 2.0
    assert np.nanmin(scene.errors(0, 2, points[known], moved)) > 50.0


def test_the_table_replaces_the_one_before(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_page(page, "new")
    assert page.read_text() == f"before\n{START}\n\nnew\n\n{END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no line"):
        write_page(page, "new")
