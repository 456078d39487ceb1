"""Extractor contest: our engine, the authors' extractor, and of XFeat the network alone.

XFeat's authors ship all that their code needs. ALIKED's code calls torchvision, which does not load
beside every PyTorch: where it does not, ours is timed alone, and the report says why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Turn, as_report, machine, race, ratio
from benchmarks.engines import Arrays, open_engine, open_network
from benchmarks.published import (
    Found,
    Image,
    PublishedAliked,
    Reference,
)
from gps_denied_inference.errors import ConfigurationError, RuntimeUnavailableError
from gps_denied_inference.models import zoo
from gps_denied_inference.runtimes.contract import BuildConfig, Progress


@dataclass(frozen=True)
class Authors:
    """The authors' side.

    Attributes:
        extract: their extractor; None where it cannot be loaded.
        untimed: why their times are not measured; empty where they are.
        facts: what of theirs runs.
    """

    extract: Callable[[Image], Found] | None
    untimed: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def open_authors(model: str, config: BuildConfig) -> Authors:
    """Load the authors' extractor for a model of the zoo.

    Raises:
        ConfigurationError: nobody's code is known for that model.
        RuntimeUnavailableError: XFeat's is not installed.
    """
    architecture = zoo.get(model).architecture
    if architecture == "xfeat":
        return Authors(Reference(config).extract)
    if architecture != "aliked":
        raise ConfigurationError(
            f"'{model}' has no authors' code to be measured beside: choose xfeat or an ALIKED"
        )
    try:
        published = PublishedAliked(model, config)
    except RuntimeUnavailableError as error:
        return Authors(None, str(error))
    return Authors(published.extract, published.untimed, published.facts)


def bench_extract(
    images: Sequence[Image],
    config: BuildConfig,
    runtime: str,
    rounds: int,
    progress: Progress | None = None,
    model: str = "xfeat",
) -> dict[str, Any]:
    """Measure extraction on images of one size, and how far the results agree.

    Args:
        images: uint8 (H, W, C), all as ``config`` says.
        config: the engine's.
        runtime: name in the runtime registry; the network alone always runs on ONNX Runtime.
        rounds: passes over all images.
        progress: called with the share done.
        model: XFeat or an ALIKED of the zoo.

    Raises:
        RuntimeUnavailableError: XFeat's authors' code is not installed.
        GpsDeniedInferenceError: as the runtime raises.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        authors = open_authors(model, config)
        ours = stack.enter_context(open_engine(model, runtime, config, folder))
        theirs = authors.extract
        turns: dict[str, Turn] = {"ours": lambda i: ours(image=images[i])}
        if theirs is not None and not authors.untimed:
            turns["authors"] = lambda i: theirs(images[i])
        if runtime == "onnxruntime" and ours.model.architecture == "xfeat":
            network = stack.enter_context(open_network(config, folder))
            maps = [_normalised(image) for image in images]
            turns["network_alone"] = lambda i: network(image=maps[i])
        timings = race(turns, len(images), rounds, progress=progress)
        report: dict[str, Any] = {
            "images": len(images),
            "rounds": rounds,
            "config": asdict(config),
            "runtime": asdict(ours.handle.readback),
            "model": {"name": model, "graph_sha256": ours.model.graph_sha256},
            "machine": machine(),
            "latency_ms": as_report(timings),
        }
        if authors.facts:
            report["authors"] = authors.facts
        if "authors" in timings:
            report["times_faster_than_authors"] = ratio(timings, "authors", "ours")
        else:
            report["authors_not_timed"] = authors.untimed
        if theirs is not None:
            same = [_agreement(ours(image=image), theirs(image)) for image in images]
            report["agreement"] = {
                "keypoints_within_half_px": min(share for share, _ in same),
                "least_descriptor_cosine": min(cosine for _, cosine in same),
            }
        if "network_alone" in timings:
            report["times_network_alone"] = ratio(timings, "ours", "network_alone")
        return report


def _normalised(image: Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    height, width = (side // 32 * 32 for side in image.shape[:2])
    gray = image.astype(np.float32).mean(axis=2)[:height, :width]
    normal: np.ndarray[Any, np.dtype[np.float32]] = (gray - gray.mean()) / gray.std()
    return normal[None, None].astype(np.float32)


def _agreement(ours: Arrays, theirs: Found) -> tuple[float, float]:
    """Return the share of keypoints within half a pixel, and the least cosine among those."""
    count = int(ours["count"][0])
    keypoints, descriptors = ours["keypoints"][:count], ours["descriptors"][:count]
    distance = np.linalg.norm(keypoints[:, None] - theirs["keypoints"][None], axis=2)
    same = distance.min(axis=1) <= 0.5
    cosine = (descriptors * theirs["descriptors"][distance.argmin(axis=1)]).sum(axis=1)
    larger = max(count, len(theirs["keypoints"]))
    return float(same.sum() / larger), float(cosine[same].min())
