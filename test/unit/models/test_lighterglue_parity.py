"""LighterGlue here against the authors' own code and weights, and the ONNX graph against torch.

The authors' code prunes points while it runs on a CPU (on a GPU only above 1536 of them), which
changes which pairs are found: pruning is compared with pruning, the whole network with the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from gps_denied_inference.errors import InvalidParameterError, ModelMismatchError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.lightglue.graph import shared_products
from gps_denied_inference.models.lightglue.stacked import stacked
from gps_denied_inference.models.registry import load_module
from gps_denied_inference.models.specialise import read_graph, specialised_graph
from gps_denied_inference.runtimes.contract import BuildConfig, Model

KEYPOINTS = 1024
INPUTS = [f"{n}{i}" for i in (0, 1) for n in ("keypoints", "descriptors", "count", "size")]
Pairs = set[tuple[int, int]]


def padded(features: dict[str, np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    count = len(features["keypoints"])
    keypoints = np.zeros((KEYPOINTS, 2), np.float32)
    descriptors = np.zeros((KEYPOINTS, 64), np.float32)
    keypoints[:count], descriptors[:count] = features["keypoints"], features["descriptors"]
    return [keypoints, descriptors, np.array([count], np.int32), np.array(size, np.float32)]


def pairs_of(matches: np.ndarray) -> Pairs:
    return {(i, int(j)) for i, j in enumerate(matches) if j >= 0}


def overlap(a: Pairs, b: Pairs) -> float:
    return len(a & b) / max(1, len(a | b))


@pytest.fixture(scope="module", params=["off", "auto"])
def pruning(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def authors_matcher(authors: ModuleType, pruning: str) -> Callable[..., Pairs]:
    import torch

    # Told each time: its settings are one dictionary that all of its objects share.
    confidence = -1 if pruning == "off" else 0.95
    network = authors.LighterGlue(width_confidence=confidence).eval()

    def match(a: list[np.ndarray], b: list[np.ndarray]) -> Pairs:
        data: dict[str, Any] = {}
        for i, (keypoints, descriptors, count, size) in enumerate((a, b)):
            n = int(count[0])
            data[f"keypoints{i}"] = torch.from_numpy(keypoints[:n])[None]
            data[f"descriptors{i}"] = torch.from_numpy(descriptors[:n])[None]
            data[f"image_size{i}"] = torch.from_numpy(size)[None]
        return {(int(i), int(j)) for i, j in network(data)["matches"][0]}

    return match


@pytest.fixture(scope="module")
def graph(pruning: str) -> onnxruntime.InferenceSession:
    config = BuildConfig(max_keypoints=KEYPOINTS, options={"pruning": pruning})
    content = specialised_graph(zoo.resolve("lighterglue"), config).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def sources(shared_data: Path, group: str) -> list[tuple[Path, Path]]:
    """Pairs of images: thirty of successive UAV frames in five groups, and graf 1 to 2..6."""
    if group == "graf":
        folder = shared_data / "oxford_graf"
        return [(folder / "img1.png", folder / f"img{i}.png") for i in range(2, 7)]
    paths = sorted((shared_data / "caliterra" / "images").iterdir())
    start = int(group) * 14
    return [(paths[i], paths[i + 1]) for i in range(start, start + 12, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("group", ["0", "1", "2", "3", "4", "graf"])
def test_torch_and_graph_match_what_the_authors_match(
    group: str,
    shared_data: Path,
    reference: Callable[..., dict[str, np.ndarray]],
    authors_matcher: Callable[..., Pairs],
    graph: onnxruntime.InferenceSession,
    published: Callable[[str], Model],
    pruning: str,
) -> None:
    import torch

    config = BuildConfig(max_keypoints=KEYPOINTS, options={"pruning": pruning})
    module = load_module(published("lighterglue"), config)
    found = 0
    for names in sources(shared_data, group):
        sets = []
        for name in names:
            image = cv2.imread(str(name))
            if group != "graf":
                image = cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA)
            image = np.ascontiguousarray(image[:, :, ::-1])
            sets.append(padded(reference(image, 1000), (image.shape[1], image.shape[0])))
        theirs = authors_matcher(*sets)
        inputs = [*sets[0], *sets[1]]
        with torch.inference_mode():
            by_torch = pairs_of(module(*map(torch.from_numpy, inputs))[0].numpy())
        by_graph = pairs_of(graph.run(["matches0"], dict(zip(INPUTS, inputs, strict=True)))[0])
        # A set of a handful can differ by one pair at the threshold and still be the same answer.
        spare = 1 if len(theirs) < 50 else 0
        for ours, other in ((by_torch, theirs), (by_graph, theirs), (by_graph, by_torch)):
            assert len(ours ^ other) <= max(spare, 0.02 * len(ours | other)), (names, group)
        found += len(theirs)
    assert found > 300


def test_padding_changes_nothing_and_is_never_matched(
    graph: onnxruntime.InferenceSession, pruning: str
) -> None:
    random = np.random.default_rng(5)
    points = random.uniform(0, 400, (60, 2)).astype(np.float32)
    descriptors = random.normal(size=(60, 64)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    one = padded({"keypoints": points, "descriptors": descriptors}, (640, 480))
    junk = [a.copy() for a in one]
    junk[0][60:], junk[1][60:] = 123.0, one[1][:1]
    matches, scores = graph.run(None, dict(zip(INPUTS, [*one, *one], strict=True)))
    with_junk, _ = graph.run(None, dict(zip(INPUTS, [*junk, *junk], strict=True)))
    right = matches[:60] == np.arange(60)
    # Random points are no scene: a layer may think some of them unmatchable.
    assert right.mean() > (0.9 if pruning == "off" else 0.7)
    assert (right | (matches[:60] == -1)).all()
    assert (matches[60:] == -1).all()
    assert not scores[60:].any()
    np.testing.assert_array_equal(matches, with_junk)


@pytest.mark.parametrize("counts", [(0, 0), (0, 9), (9, 0)])
def test_empty_sets_have_no_matches(
    graph: onnxruntime.InferenceSession,
    published: Callable[[str], Model],
    pruning: str,
    counts: tuple[int, int],
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    config = BuildConfig(max_keypoints=KEYPOINTS, options={"pruning": pruning})
    module = load_module(published("lighterglue"), config)
    unit = np.eye(9, 64)
    inputs = []
    for n in counts:
        points = np.linspace(10, 400, 2 * n).reshape(n, 2)
        inputs += padded({"keypoints": points, "descriptors": unit[:n]}, (640, 480))
    with torch.inference_mode():
        by_torch = [value.numpy() for value in module(*map(torch.from_numpy, inputs))]
    for matches, scores in (by_torch, graph.run(None, dict(zip(INPUTS, inputs, strict=True)))):
        assert (matches == -1).all()
        assert not scores.any()


def test_only_what_can_be_pruned_is_asked_to() -> None:
    model = zoo.resolve("lighterglue")
    with pytest.raises(InvalidParameterError, match=r"pruning.*on a GPU shapes are static"):
        specialised_graph(model, BuildConfig(device="cuda:0", options={"pruning": "on"}))
    with pytest.raises(InvalidParameterError, match=r"pruning.*'auto', 'on' or 'off'"):
        specialised_graph(model, BuildConfig(options={"pruning": "perhaps"}))


@pytest.mark.parametrize("value", ["much", "2", "-0.1", "nan"])
def test_a_match_threshold_out_of_bounds_is_refused(
    published: Callable[[str], Model], value: str
) -> None:
    config = BuildConfig(options={"match_threshold": value})
    with pytest.raises(InvalidParameterError, match=f"match_threshold' = '{value}'.* in 0..1"):
        specialised_graph(zoo.resolve("lighterglue"), config)
    with pytest.raises(InvalidParameterError, match=f"match_threshold' = '{value}'.* in 0..1"):
        load_module(published("lighterglue"), config)


def test_what_a_cpu_multiplies_once_is_the_same_network() -> None:
    network = read_graph(zoo.resolve("lighterglue"))
    shared = shared_products(network)
    products = [sum(n.op_type == "MatMul" for n in g.graph.node) for g in (network, shared)]
    assert products[0] - products[1] == 6  # one of each layer
    random = np.random.default_rng(3)
    feeds: dict[str, np.ndarray] = {}
    n = 40
    for i in (0, 1):
        feeds[f"points{i}"] = random.uniform(-1, 1, (n, 2)).astype(np.float32)
        unit = random.normal(size=(n, 64))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        feeds[f"descriptors{i}"] = unit.astype(np.float32)
        feeds[f"mask{i}"] = np.where(np.arange(n) < n - 5, 0.0, -10000.0).astype(np.float32)
    found = [
        onnxruntime.InferenceSession(g.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, feeds
        )
        for g in (network, shared)
    ]
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()


def test_a_gpu_keeps_both_products_and_a_pruning_cpu_one() -> None:
    counts = {}
    for pruning in ("off", "on"):
        config = BuildConfig(options={"pruning": pruning})
        graph = specialised_graph(zoo.resolve("lighterglue"), config).graph
        counts[pruning] = sum(node.op_type == "MatMul" for node in graph.node)
    assert counts["off"] - counts["on"] == 6


def dynamic_values(config: BuildConfig) -> int:
    graph = onnx.shape_inference.infer_shapes(
        specialised_graph(zoo.resolve("lighterglue"), config), data_prop=True
    ).graph
    return sum(
        any(not d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
        for value in graph.value_info
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_for_a_gpu_has_static_shapes_throughout(precision: str) -> None:
    assert dynamic_values(BuildConfig(device="cuda:0", precision=precision)) == 0
    assert dynamic_values(BuildConfig(options={"pruning": "off"})) == 0
    assert dynamic_values(BuildConfig()) > 100


def test_weights_of_the_extractor_are_refused(published: Callable[[str], Model]) -> None:
    extractor = published("xfeat").weights
    assert extractor is not None
    with pytest.raises(ModelMismatchError, match="another network"):
        load_module(zoo.resolve("lighterglue", weights=extractor), BuildConfig())


def test_several_pairs_are_not_pruned() -> None:
    model = zoo.resolve("lighterglue")
    with pytest.raises(InvalidParameterError, match=r"pruning.*several pairs"):
        specialised_graph(model, BuildConfig(batch=2, options={"pruning": "on"}))
    graph = specialised_graph(model, BuildConfig(batch=2)).graph
    assert not any(node.op_type == "Compress" for node in graph.node)


def test_a_network_of_another_kind_takes_no_several_pairs() -> None:
    with pytest.raises(ModelMismatchError, match="no several pairs"):
        stacked(read_graph(zoo.resolve("xfeat")), 2, KEYPOINTS)
