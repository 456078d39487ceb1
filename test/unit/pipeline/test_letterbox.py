"""Images of another shape than the engine's keep their aspect, on the real XFeat."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.letterbox import MARGIN, Letterbox
from gps_denied_inference.pipeline.tracking.flow import View
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig

WIDTH, HEIGHT = 320, 256


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return create_runtime("onnxruntime", cache=EngineCache(tmp_path_factory.mktemp("engines")))


@pytest.fixture(scope="module")
def handle(runtime):
    config = BuildConfig(
        width=WIDTH, height=HEIGHT, max_keypoints=400, warmup_iterations=1, threads=2
    )
    handle = runtime.deserialize_engine(runtime.compile_engine(zoo.resolve("xfeat"), config))
    yield handle
    runtime.release_engine(handle)


@pytest.fixture(scope="module")
def extractor(runtime, handle):
    return Extractor(runtime, handle)


def ground(width, height):
    grey = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(grey[200 : 200 + height, 200 : 200 + width])


def repeated(at_once, scaled, factor):
    """Share of keypoints that are found again in an image ``factor`` times as large."""
    expected = factor * (at_once.keypoints + 0.5) - 0.5
    distance = np.linalg.norm(expected[:, None] - scaled.keypoints[None], axis=2).min(axis=1)
    return np.mean(distance < 0.75 * factor)


@pytest.mark.parametrize(("width", "height"), [(320, 128), (160, 256), (320, 180)])
def test_the_aspect_is_kept(extractor, width, height):
    """Twice as large, an image of another shape gives the features that it gives as it is."""
    small = ground(width, height)
    large = np.kron(small, np.ones((2, 2), np.uint8))
    once, twice = extractor.extract(small), extractor.extract(large)
    assert (twice.width, twice.height) == (2 * width, 2 * height)
    assert once.count > 80
    assert (once.scale, twice.scale) == (1.0, 2.0)
    assert repeated(once, twice, 2) == 1.0
    # As the network sees it is as it is: the same ground in an image of the engine's own shape.
    whole = extractor.extract(ground(WIDTH, HEIGHT))
    inside = (whole.keypoints < (width - 40, height - 40)).all(axis=1)
    near = np.linalg.norm(whole.keypoints[inside][:, None] - once.keypoints[None], axis=2)
    assert np.mean(near.min(axis=1) < 0.75) > 0.6


@pytest.mark.parametrize(("width", "height"), [(320, 128), (160, 256), (640, 360), (90, 300)])
def test_no_keypoint_lies_in_the_padding_or_at_its_edge(extractor, width, height):
    features = extractor.extract(ground(width, height))
    wide = width / height > WIDTH / HEIGHT  # padded below, else at the right
    margin = MARGIN * features.scale * np.array([not wide, wide])
    assert features.count > 20
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= np.array([width, height]) - 1 - margin).all()


def test_the_engines_own_size_is_untouched(runtime, handle, extractor):
    image = ground(WIDTH, HEIGHT)
    raw = runtime.infer(handle, {"image": image[..., None]})
    count = int(raw["count"][0])
    features = extractor.extract(image)
    np.testing.assert_array_equal(features.keypoints, raw["keypoints"][:count])
    np.testing.assert_array_equal(features.scores, raw["scores"][:count])
    np.testing.assert_array_equal(features.descriptors, raw["descriptors"][:count])
    assert Letterbox.fit((WIDTH, HEIGHT), (WIDTH, HEIGHT)).apply(image) is image


def test_flow_sees_the_frame_as_the_network_does():
    view = View.of(ground(640, 360), WIDTH, HEIGHT, 100)
    assert view.grey.shape == (180, 320)
    np.testing.assert_allclose(view.scale, 0.5)


def test_a_smaller_scale_may_be_asked_for(extractor):
    small = extractor.extract(ground(640, 512), scale=0.25)
    assert small.scale == 4.0
    assert small.keypoints[:, 0].max() > 400
    assert (small.keypoints <= (639 - 4 * MARGIN, 511 - 4 * MARGIN)).all()


@pytest.mark.parametrize("size", [(4000, 3), (2, 900), (1, 1)])
def test_slivers_are_taken(extractor, size):
    features = extractor.extract(np.full(size[::-1], 90, np.uint8))
    assert features.count == 0
