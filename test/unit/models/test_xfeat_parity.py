"""XFeat here against the authors' own code and weights, and the ONNX graph against torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from gps_denied_inference.errors import (
    ModelIntegrityError,
    ModelMismatchError,
    ModelNotFoundError,
)
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import load_module
from gps_denied_inference.models.specialise import specialised_graph
from gps_denied_inference.runtimes.contract import BuildConfig, Model

KEYPOINTS = 1000
NAMES = ("keypoints", "scores", "descriptors", "count")


def config_for(image: np.ndarray, **changes: Any) -> BuildConfig:
    height, width, channels = image.shape
    settings: dict[str, Any] = {"max_keypoints": KEYPOINTS, **changes}
    return BuildConfig(height=height, width=width, channels=channels, **settings)


def valid(outputs: list[np.ndarray]) -> dict[str, np.ndarray]:
    count = int(outputs[3][0])
    for rows in outputs[:3]:
        assert not rows[count:].any()
    return {name: rows[:count] for name, rows in zip(NAMES[:3], outputs[:3], strict=True)}


def by_torch(model: Model, image: np.ndarray, **changes: Any) -> dict[str, np.ndarray]:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = load_module(model, config_for(image, **changes))
    with torch.inference_mode():
        return valid([t.numpy() for t in module(torch.from_numpy(image))])


def by_graph(model: Model, image: np.ndarray, **changes: Any) -> dict[str, np.ndarray]:
    graph = specialised_graph(model, config_for(image, **changes))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return valid(session.run(list(NAMES), {"image": image}))


def test_torch_and_graph_find_what_the_authors_find(
    frames: dict[str, np.ndarray],
    reference: Callable[..., dict[str, np.ndarray]],
    published: Callable[[str], Model],
    agreement: Callable[..., Any],
) -> None:
    model = published("xfeat")
    for name, image in frames.items():
        theirs = reference(image, KEYPOINTS)
        torch_features, graph_features = by_torch(model, image), by_graph(model, image)
        for pair in (
            (torch_features, theirs),
            (graph_features, theirs),
            (graph_features, torch_features),
        ):
            found = agreement(*pair)
            assert found.shared >= 0.99, (name, found)
            assert found.cosine >= 0.999, (name, found)
        np.testing.assert_allclose(
            np.sort(graph_features["scores"]), np.sort(theirs["scores"]), atol=1e-3
        )


def test_mono_equals_the_authors_on_the_same_mono_image(
    frames: dict[str, np.ndarray],
    reference: Callable[..., dict[str, np.ndarray]],
    published: Callable[[str], Model],
    agreement: Callable[..., Any],
) -> None:
    image = frames["img1.png"][:, :, 1:2].copy()
    found = agreement(by_graph(published("xfeat"), image), reference(image, KEYPOINTS))
    assert found.shared >= 0.99
    assert found.cosine >= 0.999


def test_float16_graph_stays_close_to_float32(
    frames: dict[str, np.ndarray], agreement: Callable[..., Any]
) -> None:
    image, model = frames["img1.png"], zoo.resolve("xfeat")
    found = agreement(by_graph(model, image, precision="fp16"), by_graph(model, image), radius=1.0)
    assert found.shared >= 0.97
    assert found.cosine >= 0.995


def test_half_turns_the_network_only(published: Callable[[str], Model]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = load_module(published("xfeat"), BuildConfig(height=64, width=96)).half()
    assert next(module.network.parameters()).dtype == torch.float16
    assert not module.training
    image = torch.randint(0, 255, (64, 96, 1), dtype=torch.uint8)
    with torch.inference_mode():
        keypoints, scores, descriptors, count = module(image)
    assert {t.dtype for t in (keypoints, scores, descriptors)} == {torch.float32}
    assert count.dtype == torch.int32


def test_weights_that_cannot_be_used_are_refused(
    tmp_path: Path, published: Callable[[str], Model]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    good = published("xfeat")
    assert good.weights is not None
    config = BuildConfig(height=64, width=64)

    def model(weights: Path | None) -> Model:
        return Model("xfeat", "xfeat", "extractor", 64, weights=weights)

    with pytest.raises(ModelNotFoundError, match="gdi models fetch xfeat"):
        load_module(model(None), config)
    with pytest.raises(ModelNotFoundError):
        load_module(model(tmp_path / "absent.pt"), config)
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(good.weights.read_bytes()[:100_000])
    with pytest.raises(ModelIntegrityError) as integrity:
        load_module(model(truncated), config)
    assert integrity.value.__cause__ is not None
    other = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(3, 3)}, other)
    with pytest.raises(ModelMismatchError, match="another network") as mismatch:
        load_module(model(other), config)
    assert mismatch.value.__cause__ is not None
