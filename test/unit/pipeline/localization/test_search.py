"""Plan, candidates, places and their acceptance, on features made up with known places."""

from __future__ import annotations

import dataclasses
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from memory_map import MemoryInfo, MemoryTile

from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization import candidates
from gps_denied_inference.pipeline.localization.acceptance import (
    Rules,
    confidence,
    refusal,
)
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer
from gps_denied_inference.pipeline.localization.placing import Pairs, Sight, pair_all, places
from gps_denied_inference.pipeline.localization.plan import Optics, plan
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.localization.similarity import Bounds
from gps_denied_inference.pipeline.localization.view import View
from gps_denied_inference.pipeline.matcher import MutualNearestNeighbour

TILE, GSD = 256, 0.5
INFO = MemoryInfo("m", "aa", (0.25, GSD, 1.0), TILE)
BOUNDS = Bounds(0.6, 1.6, math.radians(35.0))
MATCHER = MutualNearestNeighbour(0.9)
OPTICS = Optics.assumed(960, 540)


def features(points, descriptors):
    return Features(
        np.float32(points), np.ones(len(points), np.float32), np.float32(descriptors), TILE, TILE,
        "m", "aa",
    )  # fmt: skip


class World:
    """Random points with random descriptors, 512 m wide, cut into overlapping tiles."""

    def __init__(self, seed=0, count=5000):
        random = np.random.default_rng(seed)
        self.at = random.uniform(-256, 256, count) + 1j * random.uniform(-256, 256, count)
        descriptors = random.normal(size=(count, 32))
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self.info = MemoryInfo("m", "aa", (GSD,), TILE)
        side = TILE * GSD
        starts = np.arange(-256.0, 256.0 - side + 1, side / 2)
        self.tiles = [self.tile(i, e, n) for i, (e, n) in
                      enumerate((e, n + side) for n in starts for e in starts)]  # fmt: skip

    def tile(self, id, east, north):
        x, y = (self.at.real - east) / GSD - 0.5, (north - self.at.imag) / GSD - 0.5
        on = (x >= 0) & (x < TILE) & (y >= 0) & (y < TILE)
        kept = features(np.column_stack([x, y])[on], self.descriptors[on])
        return MemoryTile(id, east, north, GSD, TILE, TILE, kept)

    def sight(self, at, turn=0.0, scale=1.0, strangers=0, seed=1):
        """What is seen at a place under a heading and height that are off by turn and scale."""
        random = np.random.default_rng(seed)
        plane = (self.at - at) / (scale * np.exp(1j * turn))
        on = (abs(plane.real) < 50) & (abs(plane.imag) < 30)
        keypoints = np.column_stack([plane.real, -plane.imag])[on] / GSD + 127.5
        described = self.descriptors[on]
        if strangers:
            keypoints = np.concatenate([keypoints, random.uniform(30, 220, (strangers, 2))])
            others = random.normal(size=(strangers, 32))
            others /= np.linalg.norm(others, axis=1, keepdims=True)
            described = np.concatenate([described, others])
        inside = np.zeros((TILE, TILE), np.uint8)
        inside[68:188, 28:228] = 1
        view = View(np.zeros((TILE, TILE), np.uint8), GSD,
                    np.array([[0.004, 0, -0.51], [0, 0.004, -0.51], [0, 0, 1.0]]),
                    np.array([127.5, 127.5]), inside)  # fmt: skip
        return Sight.of(view, features(keypoints, described), 100.0, 0.0, BOUNDS)

    def centres(self, level):
        middle = [(t.east + TILE * GSD / 2, t.north - TILE * GSD / 2) for t in self.tiles]
        return np.array([t.id for t in self.tiles]), np.array(middle)

    def descriptors_of(self, level):
        return self.centres(level)[0], np.stack([mean(t.features) for t in self.tiles])


def mean(described):
    sum_of = described.descriptors.sum(axis=0)
    return sum_of / np.linalg.norm(sum_of)


@pytest.fixture(scope="module")
def world():
    return World()


class TestPlan:
    def test_a_known_height_takes_the_level_whose_tiles_are_as_wide_as_the_frame(self):
        # Frames see height / 0.74 of the ground: tiles are 64, 128 and 256 m wide.
        for height, level in ((40.0, 0), (85.0, 1), (170.0, 2), (4000.0, 2)):
            prior = Prior(height=height, height_sigma=2.0)
            assert plan(prior, OPTICS, INFO).level == level

    def test_headings_are_tried_as_far_as_they_are_uncertain(self):
        known = Prior(heading=1.0, heading_sigma=math.radians(3.0))
        vague = Prior(heading=1.0, heading_sigma=math.radians(30.0))
        assert [a.heading for a in plan(
            dataclasses.replace(known, height=100.0, height_sigma=5.0), OPTICS, INFO
        ).assumptions] == [1.0]  # fmt: skip
        tried = [a.heading for a in plan(vague, OPTICS, INFO).assumptions]
        assert min(tried) < 1.0 - math.radians(30.0)
        assert max(tried) > 1.0 + math.radians(30.0)
        assert len({a.heading for a in plan(Prior(), OPTICS, INFO).assumptions}) == 8

    def test_the_scale_may_be_off_by_three_sigmas_of_height_and_focal_length(self):
        sure = Optics(OPTICS.camera, 0.005)
        tight = plan(Prior(height=100.0, height_sigma=2.0), sure, INFO).bounds
        loose = plan(Prior(height=100.0, height_sigma=10.0), sure, INFO).bounds
        assert 1.06 < tight.most_scale < loose.most_scale < 1.8
        assert tight.least_scale == pytest.approx(1.0 / tight.most_scale)

    def test_the_maps_own_error_is_a_pixel_and_what_is_said_of_it(self):
        prior = Prior(height=85.0, height_sigma=2.0)
        assert plan(prior, OPTICS, INFO).known(85.0).map_sigma == GSD
        assert plan(prior, OPTICS, INFO, 3.0).known(85.0).map_sigma == math.hypot(GSD, 3.0)

    def test_a_leaning_camera_is_searched_where_its_axis_goes(self):
        prior = Prior(
            position=(10.0, 20.0), position_sigma=5.0, height=100.0, height_sigma=1.0,
            heading=0.0, heading_sigma=0.02, down=(0.0, 0.5, 1.0), down_sigma=0.01,
        )  # fmt: skip
        region = plan(prior, OPTICS, INFO).region
        assert region is not None
        # Gravity below the middle of the image: the camera looks up, that is ahead, to the north.
        assert region.centre == pytest.approx(10.0 + 70.0j, abs=0.1)
        assert 5.0 <= region.sigma < 7.0


class TestCandidates:
    def test_the_prior_keeps_the_tiles_that_it_reaches(self, world):
        region = candidates.Region(complex(0.0, 0.0), 20.0)
        ids, likelihood = candidates.within(world, 0, region)
        assert 0 < len(ids) < len(world.tiles)
        middle = dict(zip(*world.centres(0), strict=True))
        assert all(np.abs(middle[i]).max() <= 60.0 + 64.0 + 1e-9 for i in ids)
        assert np.abs(middle[ids[likelihood.argmax()]]).max() <= 32.0
        assert len(candidates.within(world, 0, None)[0]) == len(world.tiles)

    def test_prior_and_descriptor_are_weighed_together(self, world):
        """Of all tiles alike in distance, the one that looks like the view stays."""
        source = _Source(world)
        sight = world.sight(complex(64.0, 64.0))
        region = candidates.Region(complex(0.0, 0.0), 150.0)
        ids = candidates.narrow(source, 0, region, [sight], mean, 5)
        middle = dict(zip(*world.centres(0), strict=True))
        assert len(ids) == 5
        assert np.abs(middle[ids[0]] - 64.0).max() < 33.0
        blind = candidates.narrow(source, 0, region, [sight], None, 5)
        assert np.abs(middle[blind[0]]).max() < 33.0

    def test_ten_thousand_tiles_are_narrowed_in_ten_milliseconds(self, world):
        random = np.random.default_rng(0)
        ids = random.permutation(10_000).astype(np.int64)
        centres = random.uniform(-5000, 5000, (10_000, 2))
        whole = random.normal(size=(10_000, 256)).astype(np.float32)
        whole /= np.linalg.norm(whole, axis=1, keepdims=True)

        # In another order than the centres.
        backwards = ids[::-1].copy(), whole[::-1].copy()

        class Wide:
            info = world.info

            def centres(self, level):
                return ids, centres

            def descriptors(self, level):
                return backwards

        wanted = 1234
        sights = [world.sight(complex(64.0, 64.0))] * 8
        took = []
        for _ in range(7):
            begin = time.process_time()
            chosen = candidates.narrow(Wide(), 0, None, sights, lambda f: whole[wanted], 256)
            took.append(time.process_time() - begin)
        assert chosen[0] == ids[wanted]
        assert len(set(chosen.tolist())) == 256
        assert min(took) <= 0.010

    def test_the_right_tile_and_view_get_most_votes(self, world):
        right = world.sight(complex(100.0, -60.0), turn=0.1, scale=1.1, strangers=60)
        wrong = world.sight(complex(4000.0, 0.0), strangers=90)
        chosen = candidates.shortlist([wrong, right], world.tiles, 4)
        assert len(chosen) == 4
        with ThreadPoolExecutor(3) as voters:
            assert chosen == candidates.shortlist([wrong, right], world.tiles, 4, voters)
        sight, tile = chosen[0]
        assert sight is right
        assert abs(tile.east + 64.0 - 100.0) <= 64.0
        assert abs(tile.north - 64.0 + 60.0) <= 64.0

    def test_no_features_no_vote(self, world):
        empty = features(np.zeros((0, 2)), np.zeros((0, 32)))
        sight = dataclasses.replace(world.sight(0j), features=empty, plane=np.zeros(0, complex))
        assert candidates.votes(sight, world.tiles[:2]).tolist() == [0.0, 0.0]


class _Source:
    def __init__(self, world):
        self.info, self.centres, self.descriptors = world.info, world.centres, world.descriptors_of


def found(world, sight, tiles=None):
    pairings = pair_all([(sight, tile) for tile in tiles or world.tiles], MATCHER)
    return places(pairings), len(pairings)


@pytest.mark.parametrize("down", [(0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.1)])
def test_a_camera_that_does_not_look_down_is_not_searched_for(world, down):
    localizer = FrameLocalizer(_Source(world), None, None, (TILE, TILE))
    prior = Prior(height=100.0, height_sigma=5.0, down=down, down_sigma=0.01)
    attempt = localizer.locate(np.zeros((540, 960), np.uint8), prior, OPTICS)
    assert (attempt.fix, attempt.reason) == (None, "implausible_tilt")


class TestPlaces:
    @pytest.mark.parametrize(("turn", "scale"), [(0.0, 1.0), (0.3, 0.8), (-0.4, 1.3)])
    def test_the_place_turn_and_scale_are_found_across_tiles(self, world, turn, scale):
        at = complex(64.0, 70.0)
        best, searched = found(world, world.sight(at, turn, scale, strangers=100))
        place = best[0]
        assert abs(place.at - at) < 0.5
        assert place.similarity.angle == pytest.approx(turn, abs=0.01)
        assert place.similarity.scale == pytest.approx(scale, abs=0.01)
        assert len(place.tiles) >= 2
        assert len(np.unique(place.indices)) == place.count
        assert refusal(place, best[1:], searched, Rules()) is None

    def test_what_is_not_on_the_map_is_not_placed(self, world):
        elsewhere = World(seed=9)
        best, searched = found(world, elsewhere.sight(0j, strangers=100))
        assert not best or refusal(best[0], best[1:], searched, Rules()) is not None

    def test_two_places_that_look_alike_are_ambiguous(self, world):
        """The second half of the world repeats the first."""
        twins = World()
        east = twins.at.real > 0
        west = np.flatnonzero(~east)[: np.count_nonzero(east)]
        twins.at = np.concatenate([twins.at[west], twins.at[west] + 256.0])
        twins.descriptors = np.concatenate([twins.descriptors[west]] * 2)
        twins.tiles = [twins.tile(t.id, t.east, t.north) for t in twins.tiles]
        sight = twins.sight(complex(-128.0, 0.0))
        best, searched = found(twins, sight)
        assert len(best) >= 2
        assert refusal(best[0], best[1:], searched, Rules()) == "ambiguous"

    def test_inliers_in_one_spot_are_no_evidence(self, world):
        sight = world.sight(complex(64.0, 70.0))
        best, searched = found(world, sight)
        place = best[0]
        corner = (place.keypoints < place.keypoints.min(axis=0) + np.array([50.0, 28.0])).all(1)
        spot = dataclasses.replace(place, indices=place.indices[corner],
                                   ground=place.ground[corner])  # fmt: skip
        rules = Rules(least_inliers=3, least_confidence=0.0)
        assert refusal(spot, [], searched, rules) == "in_one_spot"

    def test_a_place_that_its_neighbours_do_not_see_is_refused(self, world):
        place = found(world, world.sight(complex(64.0, 70.0)))[0][0]
        few = slice(0, place.count, max(1, place.count // 20))
        lonely = dataclasses.replace(
            place, indices=place.indices[few], ground=place.ground[few], tiles=(1,), silent=(2, 3)
        )
        unsure = Rules(sure_confidence=1e9)
        assert refusal(lonely, [], 8, unsure) == "neighbours_disagree"
        assert refusal(lonely, [], 8, Rules()) is None
        assert refusal(dataclasses.replace(lonely, silent=()), [], 8, unsure) is None

    def test_few_inliers_are_refused_by_their_number_and_by_chance(self, world):
        place = found(world, world.sight(complex(64.0, 70.0)))[0][0]
        few = dataclasses.replace(place, indices=place.indices[:5], ground=place.ground[:5])
        assert refusal(few, [], 8, Rules()) == "too_few_inliers"
        luck = np.random.default_rng(0).permutation(place.pairs.ground)
        shuffled = dataclasses.replace(place, pairs=Pairs(place.pairs.indices, luck))
        assert confidence(place, 8) > 10.0
        rules = Rules(sure_inliers=10_000, sure_confidence=1e9)
        assert refusal(place, [], 8, rules) is None
        assert refusal(shuffled, [], 8, rules) == "by_chance"
