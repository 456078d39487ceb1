"""Extractor contest: our engine, its network alone, and the authors' detectAndCompute."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.architectures.published import Found, Image, Reference
from gps_denied_inference.bench.contest import Turn, as_report, machine, race, ratio
from gps_denied_inference.bench.engines import Arrays, open_engine, open_network
from gps_denied_inference.runtimes.protocol import BuildConfig, Progress


def bench_extract(
    images: Sequence[Image],
    config: BuildConfig,
    runtime: str,
    rounds: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure extraction on images of one size, and how far the results agree.

    Args:
        images: uint8 (H, W, C), all as ``config`` says.
        config: the engine's.
        runtime: name in the runtime registry; the network alone always runs on ONNX Runtime.
        rounds: passes over all images.
        progress: called with the share done.

    Raises:
        RuntimeUnavailableError: the authors' code is not installed.
        GpsDeniedInferenceError: as the runtime raises.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(open_engine("xfeat", runtime, config, folder))
        reference = Reference(
            config.max_keypoints, config.detection_threshold, config.device, config.threads
        )
        turns: dict[str, Turn] = {
            "ours": lambda i: ours(image=images[i]),
            "authors": lambda i: reference.extract(images[i]),
        }
        if runtime == "onnxruntime":
            network = stack.enter_context(open_network(config, folder))
            maps = [_normalised(image) for image in images]
            turns["network_alone"] = lambda i: network(image=maps[i])
        timings = race(turns, len(images), rounds, progress=progress)
        agreement = [_agreement(ours(image=image), reference.extract(image)) for image in images]
        report: dict[str, Any] = {
            "images": len(images),
            "rounds": rounds,
            "config": asdict(config),
            "runtime": asdict(ours.handle.readback),
            "model": {"name": "xfeat", "graph_sha256": ours.model.graph_sha256},
            "machine": machine(),
            "latency_ms": as_report(timings),
            "times_faster_than_authors": ratio(timings, "authors", "ours"),
            "agreement": {
                "keypoints_within_half_px": min(a[0] for a in agreement),
                "least_descriptor_cosine": min(a[1] for a in agreement),
            },
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
