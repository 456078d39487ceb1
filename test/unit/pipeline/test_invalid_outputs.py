"""What an engine answers is held against its specification before anything of it is used."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from broken_outputs import SPOILT_FEATURES, SPOILT_MATCHES, StandInBrokenRuntime

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import InvalidOutputError
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.pipeline.matcher import EngineMatcher
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig

CONFIG = BuildConfig(width=160, height=128, max_keypoints=50, warmup_iterations=1, threads=1)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).integers(0, 255, (128, 160), np.uint8)


@pytest.fixture
def broken(tmp_path):
    runtime = StandInBrokenRuntime(cache=EngineCache(tmp_path))
    yield runtime
    type(runtime).spoil = None


def load(runtime, name):
    return runtime.deserialize_engine(runtime.compile_engine(zoo.resolve(name), CONFIG))


@pytest.mark.parametrize("case", SPOILT_FEATURES)
def test_a_spoilt_answer_of_an_extractor_is_refused(broken, image, case):
    extractor = Extractor(broken, load(broken, "xfeat"))
    assert extractor.extract(image).count > 10
    StandInBrokenRuntime.spoil = staticmethod(SPOILT_FEATURES[case])
    with pytest.raises(InvalidOutputError, match="xfeat on fake answered with"):
        extractor.extract(image)
    StandInBrokenRuntime.spoil = None
    assert extractor.extract(image).count > 10


@pytest.mark.parametrize("case", SPOILT_MATCHES)
def test_a_spoilt_answer_of_a_matcher_is_refused(broken, image, case):
    features = Extractor(broken, load(broken, "xfeat")).extract(image)
    few = dataclasses.replace(
        features, keypoints=features.keypoints[:40], scores=features.scores[:40],
        descriptors=features.descriptors[:40],
    )  # fmt: skip
    matcher = EngineMatcher(broken, load(broken, "lighterglue"))
    assert matcher.match(few, few).count > 10
    StandInBrokenRuntime.spoil = staticmethod(SPOILT_MATCHES[case])
    with pytest.raises(InvalidOutputError, match="lighterglue on fake answered with"):
        matcher.match(few, few)


def test_rows_out_of_use_may_hold_anything(broken, image):
    def spoil(outputs):
        outputs["count"][0] = 10
        outputs["descriptors"][10:] = np.nan
        outputs["keypoints"][10:] = np.inf

    extractor = Extractor(broken, load(broken, "xfeat"))
    StandInBrokenRuntime.spoil = staticmethod(spoil)
    assert extractor.extract(image).count == 10


def test_a_partner_claimed_twice_goes_to_the_better_scored(broken, image):
    def spoil(outputs):
        outputs["matches0"][:3] = 7, 7, 7
        outputs["matches0"][3:] = -1
        outputs["scores0"][:3] = 0.5, 0.9, 0.7

    features = Extractor(broken, load(broken, "xfeat")).extract(image)
    matcher = EngineMatcher(broken, load(broken, "lighterglue"))
    StandInBrokenRuntime.spoil = staticmethod(spoil)
    found = matcher.match(features, features)
    assert (found.query_indices.tolist(), found.reference_indices.tolist()) == ([1], [7])


@pytest.mark.parametrize("model", ["xfeat", "aliked-t16", "aliked-n16"])
@pytest.mark.parametrize("picture", ["black", "grey", "white", "noise", "checks"])
def test_real_engines_keep_their_word_on_any_picture(tmp_path, image, model, picture):
    runtime = create_runtime("onnxruntime", cache=EngineCache(tmp_path))
    extractor = Extractor(runtime, load(runtime, model))
    rows, columns = np.indices(image.shape) // 16
    pictures = {
        "black": np.zeros_like(image),
        "grey": np.full_like(image, 128),
        "white": np.full_like(image, 255),
        "noise": image,
        "checks": (255 * ((rows + columns) % 2)).astype(np.uint8),
    }
    assert 0 <= extractor.extract(pictures[picture]).count <= 50
