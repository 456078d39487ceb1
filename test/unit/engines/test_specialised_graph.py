"""The static graph of an engine: shapes, bounds, small images, bad files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from gps_denied_inference.errors import (
    InvalidParameterError,
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
    StorageError,
)
from gps_denied_inference.models import zoo
from gps_denied_inference.models.specialise import specialise, specialised_graph
from gps_denied_inference.runtimes.contract import BuildConfig, Model, TensorSpec


@pytest.fixture
def model() -> Model:
    return zoo.resolve("xfeat")


def run(graph: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": image})


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 255, shape, dtype=np.uint8)


def test_writes_a_static_graph_and_returns_its_specs(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "engine.onnx"
    inputs, outputs = specialise(model, BuildConfig(96, 128, 3, 200), path)
    assert inputs == (TensorSpec("image", (96, 128, 3), "uint8"),)
    assert outputs == (
        TensorSpec("keypoints", (200, 2), "float32"),
        TensorSpec("scores", (200,), "float32"),
        TensorSpec("descriptors", (200, 64), "float32"),
        TensorSpec("count", (1,), "int32"),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["engine.onnx"]
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    for value in graph.value_info:
        dims = value.type.tensor_type.shape.dim
        assert all(dim.HasField("dim_value") for dim in dims), value.name
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"NonZero", "Shape", "Loop", "If", "Unique", "ScatterND"}


@pytest.mark.parametrize(("height", "width", "channels"), [(64, 96, 1), (75, 101, 3), (33, 63, 1)])
def test_keypoints_lie_in_the_source_image_in_falling_order(
    model: Model, height: int, width: int, channels: int
) -> None:
    graph = specialised_graph(model, BuildConfig(height, width, channels, 50, 0.01))
    keypoints, scores, descriptors, count = run(graph, noise(height, width, channels))
    n = int(count[0])
    assert 0 < n <= 50
    assert (keypoints[:n] >= -0.5).all()
    assert (keypoints[:n] < [width - 0.5, height - 0.5]).all()
    assert (np.diff(scores[:n]) <= 0).all()
    assert (scores[:n] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(descriptors[:n], axis=1), 1.0, atol=1e-5)
    for rows in (keypoints, scores, descriptors):
        assert not rows[n:].any()


def test_more_keypoints_asked_for_than_the_image_can_hold(model: Model) -> None:
    graph = specialised_graph(model, BuildConfig(32, 32, 1, 3840, 0.0))
    keypoints, _, _, count = run(graph, noise(32, 32, 1))
    assert keypoints.shape == (3840, 2)
    assert 0 < int(count[0]) < 256


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_has_no_keypoints_and_nothing_but_zeros(model: Model, level: int) -> None:
    graph = specialised_graph(model, BuildConfig(64, 64, 1, 20))
    outputs = run(graph, np.full((64, 64, 1), level, np.uint8))
    for rows in outputs:
        assert np.isfinite(rows).all()
        assert not rows.any()


def test_a_higher_threshold_keeps_fewer_keypoints(model: Model) -> None:
    counts = [
        int(run(specialised_graph(model, BuildConfig(96, 96, 1, 500, t)), noise(96, 96, 1))[3][0])
        for t in (0.0, 0.05, 0.5)
    ]
    assert counts[0] > counts[1] > counts[2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_keypoints": 0}, "max_keypoints.*1..3840"),
        ({"max_keypoints": 3841}, "max_keypoints.*1..3840"),
        ({"max_keypoints": 10.0}, "max_keypoints.*whole number"),
        ({"height": 31}, "height.*32..8192"),
        ({"width": 0}, "width.*32..8192"),
        ({"width": True}, "width.*whole number"),
        ({"channels": 2}, "channels.*1 .mono. or 3"),
        ({"detection_threshold": 1.01}, "detection_threshold"),
        ({"detection_threshold": float("nan")}, "detection_threshold"),
        ({"precision": "int8"}, "precision.*fp32.*fp16"),
    ],
)
def test_settings_out_of_bounds_are_refused(
    tmp_path: Path, model: Model, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        specialise(model, replace(BuildConfig(), **changes), tmp_path / "engine.onnx")
    assert not list(tmp_path.iterdir())


def test_graphs_that_cannot_be_used_are_refused(tmp_path: Path, model: Model) -> None:
    assert model.graph is not None
    target = tmp_path / "engine.onnx"
    with pytest.raises(ModelNotFoundError, match="gdi models export xfeat"):
        specialise(replace(model, graph=None), BuildConfig(), target)
    with pytest.raises(ModelNotFoundError):
        specialise(replace(model, graph=tmp_path / "absent.onnx"), BuildConfig(), target)
    for content in (model.graph.read_bytes()[:200_000], b"", b"not a graph at all"):
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(content)
        with pytest.raises(ModelIntegrityError):
            specialise(replace(model, graph=broken), BuildConfig(), target)
    other = onnx.load(model.graph)
    del other.graph.output[1:]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelMismatchError, match="keypoint_logits"):
        specialise(replace(model, graph=tmp_path / "other.onnx"), BuildConfig(), target)
    assert not target.exists()


def test_a_destination_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, model: Model
) -> None:
    with pytest.raises(StorageError, match="cannot write the graph"):
        specialise(model, BuildConfig(), tmp_path / "no" / "such" / "folder" / "engine.onnx")
    with pytest.raises(StorageError, match="Is a directory"):
        specialise(model, BuildConfig(64, 64), tmp_path)
    assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".part")]
