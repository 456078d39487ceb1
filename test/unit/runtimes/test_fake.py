"""The fake runtime: whole protocol, honest answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.errors import (
    EngineBuildError,
    InferenceError,
    InputMismatchError,
    InvalidHandleError,
)
from gps_denied_inference.runtimes.contract import BuildConfig, EngineHandle, Model
from gps_denied_inference.runtimes.fake import FakeRuntime

EXTRACTOR = Model("xfeat", "xfeat", "extractor", 64)
MATCHER = Model("lighterglue", "lighterglue", "matcher", 64)
CONFIG = BuildConfig(height=96, width=128, max_keypoints=60)


@pytest.fixture
def runtime(tmp_path: Path) -> FakeRuntime:
    return FakeRuntime(cache=EngineCache(tmp_path))


def load(runtime: FakeRuntime, model: Model, config: BuildConfig = CONFIG) -> EngineHandle:
    return runtime.deserialize_engine(runtime.compile_engine(model, config))


def scene() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (96, 160, 1), dtype=np.uint8)


def test_features_keep_the_contract(runtime: FakeRuntime) -> None:
    handle = load(runtime, EXTRACTOR)
    image = scene()[:, :128]
    outputs = runtime.infer(handle, {"image": image})
    assert [(name, array.shape, array.dtype.name) for name, array in outputs.items()] == [
        (spec.name, spec.shape, spec.dtype) for spec in handle.outputs
    ]
    count = int(outputs["count"][0])
    assert 50 <= count <= 60
    x, y = outputs["keypoints"][:count].astype(int).T
    np.testing.assert_allclose(outputs["scores"][:count], image[y, x, 0] / 255, atol=1e-6)
    assert np.all(np.diff(outputs["scores"][:count]) <= 0)
    np.testing.assert_allclose(np.linalg.norm(outputs["descriptors"][:count], axis=1), 1, atol=1e-5)
    for name in ("keypoints", "scores", "descriptors"):
        assert not outputs[name][count:].any()


def test_dark_frame_has_no_features_and_equal_frames_have_equal_ones(runtime: FakeRuntime) -> None:
    handle = load(runtime, EXTRACTOR)
    dark = runtime.infer(handle, {"image": np.zeros((96, 128, 1), np.uint8)})
    assert dark["count"][0] == 0
    image = scene()[:, :128]
    first, second = (runtime.infer(handle, {"image": image}) for _ in range(2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        assert array is not second[name]


def test_matcher_finds_the_motion_between_two_views(runtime: FakeRuntime) -> None:
    config = dataclasses.replace(CONFIG, max_keypoints=400)
    extractor, matcher = load(runtime, EXTRACTOR, config), load(runtime, MATCHER, config)
    views = [scene()[:, shift : shift + 128] for shift in (0, 8)]
    features = [runtime.infer(extractor, {"image": view}) for view in views]
    inputs = {}
    for side, found in enumerate(features):
        for name in ("keypoints", "descriptors", "count"):
            inputs[f"{name}{side}"] = found[name]
        inputs[f"size{side}"] = np.array([128, 96], np.float32)
    outputs = runtime.infer(matcher, inputs)
    query = np.flatnonzero(outputs["matches0"] >= 0)
    assert len(query) >= 40
    reference = outputs["matches0"][query]
    motion = features[0]["keypoints"][query] - features[1]["keypoints"][reference]
    assert np.mean(np.all(motion == [8, 0], axis=1)) > 0.9
    assert np.all(outputs["scores0"][outputs["matches0"] < 0] == 0)


def test_colour_and_unknown_kinds(runtime: FakeRuntime) -> None:
    handle = load(runtime, EXTRACTOR, dataclasses.replace(CONFIG, channels=3))
    assert runtime.infer(handle, {"image": np.full((96, 128, 3), 200, np.uint8)})["count"][0] > 0
    with pytest.raises(EngineBuildError, match="'segmenter'"):
        runtime.compile_engine(dataclasses.replace(EXTRACTOR, kind="segmenter"), CONFIG)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"picture": np.zeros((96, 128, 1), np.uint8)},
        {"image": np.zeros((96, 128), np.uint8)},
        {"image": np.zeros((96, 128, 1), np.float32)},
        {"image": [[0]]},
    ],
)
def test_wrong_inputs_are_refused(runtime: FakeRuntime, inputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputMismatchError, match="image"):
        runtime.infer(load(runtime, EXTRACTOR), inputs)


def test_handles_are_refused_after_release_and_by_strangers(
    runtime: FakeRuntime, tmp_path: Path
) -> None:
    handle = load(runtime, EXTRACTOR)
    stranger = FakeRuntime(cache=EngineCache(tmp_path))
    image = np.zeros((96, 128, 1), np.uint8)
    for call in (
        lambda: stranger.infer(handle, {"image": image}),
        lambda: stranger.release_engine(handle),
    ):
        with pytest.raises(InvalidHandleError, match="not made by this runtime"):
            call()
    assert runtime.live == 1
    runtime.release_engine(handle)
    runtime.release_engine(handle)
    assert runtime.live == 0
    with pytest.raises(InvalidHandleError, match="released"):
        runtime.infer(handle, {"image": image})


def test_ordered_failures_come_once(runtime: FakeRuntime) -> None:
    handle = load(runtime, EXTRACTOR)
    runtime.failures.append(InferenceError("boom"))
    image = np.zeros((96, 128, 1), np.uint8)
    with pytest.raises(InferenceError, match="boom"):
        runtime.infer(handle, {"image": image})
    runtime.infer(handle, {"image": image})
