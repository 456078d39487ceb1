"""How well matches find a known homography, beside the authors' matchers on the same features.

The images are an Oxford affine sequence, such as graf: ``img1`` to ``imgN`` and, from image 1 to
each other one, the true homography in a text file ``H1toNp``. One extractor, ours, sees them; then
each matcher, ours and the authors', gets the very same features, and one MAGSAC++ with the same
seeds turns its pairs into a homography. What differs at the end comes from the matcher alone.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.contest import machine
from benchmarks.engines import (
    Arrays,
    Engine,
    features_of,
    matcher_inputs,
    open_engine,
    pairs_of,
)
from benchmarks.published import Reference
from gps_denied_inference.errors import ConfigurationError, FrameError, StorageError
from gps_denied_inference.images.files import read_image
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.geometry import Points, project, verify
from gps_denied_inference.pipeline.matcher import Matches, MutualNearestNeighbour
from gps_denied_inference.runtimes.contract import BuildConfig, Progress

Pairs = npt.NDArray[np.int64]

RIVALS = {
    "ours_lighterglue": "authors_lighterglue",
    "ours_lighterglue_unpruned": "authors_lighterglue_unpruned",
    "ours_nearest_neighbour": "authors_nearest_neighbour",
}
"""Whom each of our matchers is held against: pruning against pruning, whole against whole."""


@dataclass(frozen=True, eq=False)
class PlanarSequence:
    """A planar scene whose truth is known.

    Attributes:
        images: by number from 1, uint8 (H, W) grey.
        truth: by number from 2, (3, 3) float64, px of image 1 to px of that image.
    """

    images: dict[int, npt.NDArray[np.uint8]]
    truth: dict[int, Points]


def read_sequence(folder: Path) -> PlanarSequence:
    """Read an Oxford sequence: ``img1.*`` .. ``imgN.*`` and ``H1to2p`` .. ``H1toNp``.

    Raises:
        ConfigurationError: no such sequence in the folder, or images of several sizes.
    """
    truth = {int(f.name[4:-1]): np.loadtxt(f) for f in sorted(folder.glob("H1to[0-9]*p"))}
    images: dict[int, npt.NDArray[np.uint8]] = {}
    for number in (1, *truth):
        files = sorted(folder.glob(f"img{number}.*"))
        if not files:
            raise ConfigurationError(
                f"{folder} has no readable image img{number}.*: give the folder of an Oxford "
                "affine sequence (img1.png, img2.png, H1to2p, ...)"
            )
        try:
            images[number] = read_image(files[0])
        except (FrameError, StorageError) as error:
            raise ConfigurationError(
                f"{folder} has no readable image img{number}.*: {error}"
            ) from error
    sizes = {image.shape for image in images.values()}
    if not truth or len(sizes) > 1 or any(h.shape != (3, 3) for h in truth.values()):
        raise ConfigurationError(
            f"{folder} is no sequence to measure on: it needs homographies H1to2p ... of 3 x 3 "
            f"numbers (found {len(truth)}) and images of one size (found {len(sizes)})"
        )
    return PlanarSequence(images, truth)


def fitted(sequence: PlanarSequence) -> PlanarSequence:
    """Cut rows and columns off at the bottom and right, up to 31, so that an engine takes the rest.

    Engines take multiples of 32. Pixels keep their coordinates, and so the truth holds.

    Raises:
        ConfigurationError: less than 32 px are left of a side.
    """
    height, width = (side - side % 32 for side in sequence.images[1].shape)
    if not height or not width:
        raise ConfigurationError("images are smaller than 32 px, the least that an engine takes")
    return PlanarSequence(
        {n: np.ascontiguousarray(image[:height, :width]) for n, image in sequence.images.items()},
        sequence.truth,
    )


def corner_error(found: Points | None, truth: Points, width: int, height: int) -> float:
    """Return the mean distance, px, between image 1's corners mapped by both; inf without a model.

    Args:
        found, truth: (3, 3), px of image 1 to px of the other image.
        width, height: px, of image 1.
    """
    if found is None:
        return float("inf")
    right, bottom = width - 1.0, height - 1.0
    corners = np.array([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])
    return float(np.linalg.norm(project(found, corners) - project(truth, corners), axis=1).mean())


@dataclass(frozen=True)
class Accuracy:
    """What one matcher's pairs were worth on one pair of images.

    Attributes:
        matches: pairs found.
        right: of those, within the threshold of the truth.
        corner_error: px, of the homography from all pairs, one per seed; inf where verification
            found none to stand by.
        resampled: px, likewise, each without another tenth of the pairs.
    """

    matches: int
    right: int
    corner_error: tuple[float, ...]
    resampled: tuple[float, ...]

    @classmethod
    def of(
        cls,
        matches: Matches,
        truth: Points,
        size: tuple[int, int],
        threshold: float = 3.0,
        runs: int = 10,
    ) -> Accuracy:
        """Measure matches of image 1 (query) with another image (reference).

        Args:
            truth: (3, 3), px of image 1 to px of the other.
            size: (width, height) of image 1, px.
            threshold: px, of the verification.
            runs: number of seeds.
        """

        def error(pairs: Matches, seed: int) -> float:
            model = verify(pairs, "homography", threshold, seed)
            return corner_error(None if model is None else model.matrix, truth, *size)

        off = project(truth, matches.query_points.astype(np.float64)) - matches.reference_points
        kept = [np.random.default_rng(r).random(matches.count) >= 0.1 for r in range(runs)]
        return cls(
            matches.count,
            int(np.count_nonzero(np.linalg.norm(off, axis=1) < threshold)),
            tuple(error(matches, seed) for seed in range(runs)),
            tuple(error(matches.select(keep), seed) for seed, keep in enumerate(kept)),
        )

    @property
    def median(self) -> float:
        """Corner error over the seeds, px; inf where most runs found no homography."""
        return float(np.quantile(self.corner_error, 0.5, method="higher"))

    @property
    def bound(self) -> float:
        """The largest error that these pairs give by the luck of the draw, px; inf if always."""
        finite = [e for e in (*self.corner_error, *self.resampled) if np.isfinite(e)]
        return max(finite, default=float("inf"))

    def report(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "matches": self.matches,
            "right": self.right,
            "corner_error_px": {
                "median": self.median,
                "least": min(self.corner_error),
                "most": max(self.corner_error),
                "bound": self.bound,
            },
            "runs": len(self.corner_error),
            "runs_without_model": sum(not np.isfinite(e) for e in self.corner_error),
        }


def verdict(ours: Accuracy, theirs: Accuracy) -> str:
    """Return ``"no worse"``, ``"worse"``, or ``"neither"`` where no one finds a homography.

    No worse means: our median corner error lies within what the authors' own pairs give when
    only the seed changes, or when a random tenth of the pairs is missing. Two matchers that were
    equally good would differ by as much. Finding none where they find one is worse.
    """
    if not np.isfinite(theirs.median):
        return "no worse" if np.isfinite(ours.median) else "neither"
    return "no worse" if ours.median <= theirs.bound else "worse"


def bench_homography(
    folder: Path,
    config: BuildConfig,
    runtime: str,
    runs: int = 10,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure every matcher on every pair (image 1, image n) of a sequence.

    Args:
        folder: see :func:`read_sequence`.
        config: the engines'; its image size and channels are replaced by the sequence's.
        runtime: name in the runtime registry.
        runs: seeds of the random sampling.
        progress: called with the share done.

    Raises:
        ConfigurationError: the folder holds no sequence.
        RuntimeUnavailableError: the authors' code is not installed.
        GpsDeniedInferenceError: as the runtime raises.
    """
    sequence = read_sequence(folder)
    sequence = fitted(sequence)
    height, width = sequence.images[1].shape
    config = replace(config, width=width, height=height, channels=1)
    results: dict[str, dict[str, Accuracy]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        extractor, glue = (
            stack.enter_context(open_engine(model, runtime, config, Path(name)))
            for model in ("xfeat", "lighterglue")
        )
        unpruned = replace(config, options={**config.options, "pruning": "off"})
        whole = stack.enter_context(open_engine("lighterglue", runtime, unpruned, Path(name)))
        authors = Reference(config)
        found = {n: extractor(image=image[:, :, None]) for n, image in sequence.images.items()}
        for step, (number, truth) in enumerate(sequence.truth.items()):
            outputs = found[1], found[number]
            first, second = (features_of(f, (width, height), extractor.model) for f in outputs)
            ones = np.ones(config.max_keypoints, np.float32)
            results[f"1-{number}"] = {
                matcher: Accuracy.of(
                    Matches.between(first, second, pairs[:, 0], pairs[:, 1], ones[: len(pairs)]),
                    truth,
                    (width, height),
                    runs=runs,
                )
                for matcher, pairs in _all_pairs(
                    (first, second), outputs, (glue, whole), authors
                ).items()
            }
            if progress:
                progress((step + 1) / len(sequence.truth), f"measured 1-{number}")
        return {
            "sequence": folder.name,
            "config": asdict(config),
            "runtime": asdict(glue.handle.readback),
            "models": {e.model.name: e.model.graph_sha256 for e in (extractor, glue)},
            "machine": machine(),
            "accuracy": {
                pair: {matcher: a.report() for matcher, a in row.items()}
                for pair, row in results.items()
            },
            "verdicts": {
                pair: {
                    f"{ours} against {rival}": verdict(row[ours], row[rival])
                    for ours, rival in RIVALS.items()
                }
                for pair, row in results.items()
            },
        }


def _all_pairs(
    features: tuple[Features, Features],
    outputs: tuple[Arrays, Arrays],
    glues: tuple[Engine, Engine],
    authors: Reference,
) -> dict[str, Pairs]:
    """Let every matcher match the same two sets of features, (M, 2) each.

    Args:
        features: the two sets.
        outputs: the same as the extractor engine gave them, padded to K.
        glues: LighterGlue as it is by default, and with no pruning.
        authors: the authors' matchers.
    """
    first, second = features
    size = (first.width, first.height)
    inputs = matcher_inputs(*outputs, size)
    nearest = MutualNearestNeighbour().match(first, second)
    one, two = ({"keypoints": f.keypoints, "descriptors": f.descriptors} for f in features)
    pairs = {
        "ours_lighterglue": _sorted(pairs_of(glues[0](**inputs)["matches0"])),
        "ours_lighterglue_unpruned": _sorted(pairs_of(glues[1](**inputs)["matches0"])),
        "authors_lighterglue": authors.match(one, two, size, prune=True),
        "authors_lighterglue_unpruned": authors.match(one, two, size, prune=False),
        "ours_nearest_neighbour": np.stack(
            [nearest.query_indices, nearest.reference_indices], axis=1
        ).astype(np.int64),
        "authors_nearest_neighbour": authors.nearest(one, two),
    }
    # One order for all: random sampling sees the same set as the same.
    return {name: found[np.argsort(found[:, 0])] for name, found in pairs.items()}


def _sorted(pairs: set[tuple[int, int]]) -> Pairs:
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)
