"""Matcher contest: extractor and matcher end to end, and each matcher, beside the authors'."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Turn, as_report, machine, race, ratio
from benchmarks.engines import (
    Engine,
    features_of,
    matcher_inputs,
    open_engine,
    pairs_of,
)
from benchmarks.published import Image, Reference
from gps_denied_inference.pipeline.matcher import Matches, MutualNearestNeighbour
from gps_denied_inference.runtimes.contract import BuildConfig, Progress


def bench_match(
    images: Sequence[Image],
    config: BuildConfig,
    runtime: str,
    rounds: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure matching of each image with the next, and how far the match sets agree.

    End to end is what a frame costs once the reference's features are known: extract one image,
    match it. Like meets like: LighterGlue that prunes (both sides' default on a CPU) the authors'
    that prunes, the one that does not theirs that does not. Our nearest neighbours are the node's,
    in numpy; the authors' run where PyTorch does.

    Args:
        images: at least two, uint8 (H, W, C), all as ``config`` says.
        config: the engines'.
        runtime: name in the runtime registry.
        rounds: passes over all pairs.
        progress: called with the share done.

    Raises:
        RuntimeUnavailableError: the authors' code is not installed.
        GpsDeniedInferenceError: as the runtime raises.
    """
    size = (config.width, config.height)
    pairs = len(images) - 1
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        engines = {
            model: stack.enter_context(open_engine(model, runtime, config, Path(name)))
            for model in ("xfeat", "lighterglue")
        }
        whole = replace(config, options={**config.options, "pruning": "off"})
        full = stack.enter_context(open_engine("lighterglue", runtime, whole, Path(name)))
        extractor = engines["xfeat"]
        reference = Reference(config)
        ours = [extractor(image=image) for image in images]
        theirs = [reference.extract(image) for image in images]

        def our_match(engine: Engine, i: int, fresh: bool) -> np.ndarray[Any, Any]:
            current = extractor(image=images[i + 1]) if fresh else ours[i + 1]
            return engine(**matcher_inputs(ours[i], current, size))["matches0"]

        def our_nearest(i: int, fresh: bool) -> Matches:
            current = extractor(image=images[i + 1]) if fresh else ours[i + 1]
            one, two = (features_of(f, size, extractor.model) for f in (ours[i], current))
            return nearest.match(one, two)

        def their_match(i: int, fresh: bool, prune: bool) -> np.ndarray[Any, Any]:
            current = reference.extract(images[i + 1]) if fresh else theirs[i + 1]
            return reference.match(theirs[i], current, size, prune)

        def their_nearest(i: int, fresh: bool) -> np.ndarray[Any, Any]:
            current = reference.extract(images[i + 1]) if fresh else theirs[i + 1]
            return reference.nearest(theirs[i], current)

        glue, nearest = engines["lighterglue"], MutualNearestNeighbour()
        turns: dict[str, Turn] = {
            "ours_end_to_end": lambda i: our_match(glue, i, fresh=True),
            "authors_end_to_end": lambda i: their_match(i, fresh=True, prune=True),
            "ours_end_to_end_nearest_neighbour": lambda i: our_nearest(i, fresh=True),
            "authors_end_to_end_nearest_neighbour": lambda i: their_nearest(i, fresh=True),
            "ours_lighterglue": lambda i: our_match(glue, i, fresh=False),
            "ours_lighterglue_unpruned": lambda i: our_match(full, i, fresh=False),
            "authors_lighterglue": lambda i: their_match(i, fresh=False, prune=True),
            "authors_lighterglue_unpruned": lambda i: their_match(i, fresh=False, prune=False),
            "ours_nearest_neighbour": lambda i: our_nearest(i, fresh=False),
            "authors_nearest_neighbour": lambda i: their_nearest(i, fresh=False),
        }
        timings = race(turns, pairs, rounds, progress=progress)
        return {
            "pairs": pairs,
            "rounds": rounds,
            "config": asdict(config),
            "runtime": asdict(glue.handle.readback),
            "models": {m: e.model.graph_sha256 for m, e in engines.items()},
            "machine": machine(),
            "latency_ms": as_report(timings),
            "times_faster_than_authors": {
                "end_to_end": ratio(timings, "authors_end_to_end", "ours_end_to_end"),
                "end_to_end_nearest_neighbour": ratio(
                    timings,
                    "authors_end_to_end_nearest_neighbour",
                    "ours_end_to_end_nearest_neighbour",
                ),
                "lighterglue": ratio(timings, "authors_lighterglue", "ours_lighterglue"),
                "lighterglue_unpruned": ratio(
                    timings, "authors_lighterglue_unpruned", "ours_lighterglue_unpruned"
                ),
                "nearest_neighbour": ratio(
                    timings, "authors_nearest_neighbour", "ours_nearest_neighbour"
                ),
            },
            "agreement": _agreement({"pruned": glue, "unpruned": full}, reference, theirs, config),
        }


def _agreement(
    engines: dict[str, Engine],
    reference: Reference,
    theirs: Sequence[dict[str, Any]],
    config: BuildConfig,
) -> dict[str, float]:
    """Compare match sets on the authors' features, like with like."""
    size = (config.width, config.height)
    shares: dict[str, list[float]] = {name: [] for name in engines}
    for first, second in itertools.pairwise(theirs):
        inputs = matcher_inputs(_padded(first, config), _padded(second, config), size)
        for name, values in shares.items():
            found = pairs_of(engines[name](**inputs)["matches0"])
            other = reference.match(first, second, size, prune=name == "pruned")
            pairs = {(int(i), int(j)) for i, j in other}
            values.append(len(found & pairs) / max(1, len(found | pairs)))
    return {
        f"{kind}_{name}": float(value)
        for name, values in shares.items()
        for kind, value in (("least", min(values)), ("mean", np.mean(values)))
    }


def _padded(found: dict[str, Any], config: BuildConfig) -> dict[str, Any]:
    count = len(found["keypoints"])
    rows: dict[str, Any] = {"count": np.array([count], np.int32)}
    for name in ("keypoints", "descriptors"):
        rows[name] = np.zeros((config.max_keypoints, found[name].shape[1]), np.float32)
        rows[name][:count] = found[name]
    return rows
