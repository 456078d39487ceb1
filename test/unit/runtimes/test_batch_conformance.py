"""Several images in one forward pass: each gets what it gets alone, on every runtime here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conformance_cases import CASES, HEIGHT, WIDTH, K, scene, xfeat

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import EngineRejectedError, InvalidParameterError
from gps_denied_inference.models import zoo
from gps_denied_inference.pipeline.extractor import Extractor
from gps_denied_inference.runtimes import create_runtime
from gps_denied_inference.runtimes.contract import BuildConfig

BATCHES = (2, 3, 4)


@pytest.fixture(scope="module", params=CASES, ids=str)
def engines(request, tmp_path_factory):
    """The runtime of one case with its engine for one image, and for each of BATCHES."""
    case = request.param
    missing = case.missing() or case.why_no_run()
    if missing:
        pytest.skip(missing)
    runtime = create_runtime(
        case.runtime, cache=EngineCache(tmp_path_factory.mktemp("engines")), **case.options()
    )
    handles = {
        batch: runtime.deserialize_engine(
            runtime.compile_engine(xfeat(case), replace(case.config, batch=batch))
        )
        for batch in (1, *BATCHES)
    }
    yield case, runtime, handles
    for handle in handles.values():
        runtime.release_engine(handle)


def same(case, alone, together):
    """The same keypoints in the same order but for ties, descriptors alike to rounding."""
    n = int(alone["count"][0])
    assert int(together["count"][0]) == n > 20
    sorted_ = []
    for answer in (alone, together):
        order = np.lexsort(answer["keypoints"][:n].T)
        names = ("keypoints", "scores", "descriptors")
        sorted_.append({name: answer[name][:n][order] for name in names})
    wanted, got = sorted_
    if case.config.precision == "fp32":
        for name, tolerance in (("keypoints", 1e-3), ("scores", 1e-4), ("descriptors", 1e-3)):
            np.testing.assert_allclose(got[name], wanted[name], atol=tolerance)
    else:
        shared = set(map(tuple, wanted["keypoints"])) & set(map(tuple, got["keypoints"]))
        assert len(shared) >= 0.97 * n
    for name in ("keypoints", "scores", "descriptors"):
        assert not together[name][n:].any(), name


@pytest.mark.parametrize("batch", BATCHES)
def test_each_image_is_answered_as_alone(engines, batch):
    case, runtime, handles = engines
    images = [scene(seed) for seed in range(batch)]
    answers = runtime.infer(handles[batch], {"image": np.stack(images)})
    assert answers["keypoints"].shape == (batch, K, 2)
    assert answers["scores"].shape == (batch, K)
    assert answers["count"].shape == (batch, 1)
    for place, image in enumerate(images):
        alone = runtime.infer(handles[1], {"image": image})
        same(case, alone, {name: values[place] for name, values in answers.items()})


def test_what_the_others_show_changes_nothing(engines):
    case, runtime, handles = engines
    image, black = scene(7), np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    first = None
    for neighbour in (black, noise, image):
        for place in (0, 1):
            pair = [neighbour, neighbour]
            pair[place] = image
            answers = runtime.infer(handles[2], {"image": np.stack(pair)})
            mine = {name: values[place] for name, values in answers.items()}
            first = first or mine
            same(case, first, mine)


def test_the_extractor_gives_the_same_features(engines):
    """Images of other sizes than the engine's, and more or fewer than it takes at a time."""
    _, runtime, handles = engines
    images = [
        np.ascontiguousarray(scene(seed)[: HEIGHT - 10 * seed, : WIDTH - 7 * seed, 0])
        for seed in range(3)
    ]
    alone = [Extractor(runtime, handles[1]).extract(image) for image in images]
    for batch in (2, 4):
        extractor = Extractor(runtime, handles[batch])
        assert extractor.batch == batch
        for mine, other in zip(extractor.extract_together(images), alone, strict=True):
            assert (mine.width, mine.height) == (other.width, other.height)
            assert abs(mine.count - other.count) <= 0.03 * other.count
        single = extractor.extract(images[0])
        assert abs(single.count - alone[0].count) <= 0.03 * alone[0].count


def test_a_batch_is_another_engine(tmp_path):
    runtime = create_runtime("fake", cache=EngineCache(tmp_path))
    config = BuildConfig(height=64, width=64, max_keypoints=10)
    one, two = (
        runtime.compile_engine(zoo.resolve("xfeat"), replace(config, batch=batch))
        for batch in (1, 2)
    )
    assert one.artifact != two.artifact
    assert two.manifest.build_config().batch == 2
    with pytest.raises(EngineRejectedError, match="batch"):
        runtime.deserialize_engine(replace(two, config=config))


@pytest.mark.parametrize("batch", [0, 17, True, 2.0])
def test_bounds_of_the_batch(tmp_path, batch):
    runtime = create_runtime("fake", cache=EngineCache(tmp_path))
    with pytest.raises(InvalidParameterError, match="batch"):
        runtime.compile_engine(zoo.resolve("xfeat"), BuildConfig(batch=batch))


@pytest.mark.parametrize(
    ("name", "model"), [("onnxruntime", "aliked-t16"), ("fake", "aliked-lightglue")]
)
def test_networks_that_take_one_at_a_time_say_so(tmp_path, name, model):
    runtime = create_runtime(name, cache=EngineCache(tmp_path))
    with pytest.raises(InvalidParameterError, match="takes one at a time"):
        runtime.compile_engine(zoo.resolve(model), BuildConfig(batch=2))


def test_tensorrt_for_rtx_builds_a_batch(tmp_path):
    """Its other half needs a GPU."""
    case = next(case for case in CASES if case.name == "tensorrt_rtx-build")
    if case.missing():
        pytest.skip(case.missing())
    runtime = create_runtime(case.runtime, cache=EngineCache(tmp_path), **case.options())
    entry = runtime.compile_engine(xfeat(case), replace(case.config, batch=2))
    assert entry.manifest.inputs[0].shape == (2, HEIGHT, WIDTH, 1)
