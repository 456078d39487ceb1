"""Time of a fix, beside the authors' extractor and matcher doing the same views and tiles.

Run from the source tree, with a prepared map and frames as ``gdi evaluate`` takes them::

    python3 -m benchmarks.locate town.map flight --prior-sigma 75

Ours is the whole search: view, features, vote, matches, pose and acceptance. Theirs is what cannot
be left out when the same work is done with their code, the tiles' features at hand: features of
each view that ours made, and LighterGlue between it and each tile that ours matched it with
(``authors``), or each tile that the prior leaves, of which ours chooses by its vote
(``authors, all tiles``).
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import as_report, machine, race, ratio
from benchmarks.published import Found, Image, Reference
from gps_denied_inference.evaluation.frames import read_camera, read_frames
from gps_denied_inference.evaluation.priors import PriorMaker, PriorOptions
from gps_denied_inference.images.files import read_image
from gps_denied_inference.maps.prepare import engine_settings
from gps_denied_inference.maps.store import MapStore
from gps_denied_inference.networks import Networks
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.localization.candidates import within
from gps_denied_inference.pipeline.localization.hunt import PAIRS_AT_ONCE
from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer
from gps_denied_inference.pipeline.localization.plan import Optics, plan
from gps_denied_inference.pipeline.localization.prior import Prior
from gps_denied_inference.pipeline.matcher import Matches, SeveralMatcher
from gps_denied_inference.pipeline.rotations import ExtractorLike
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.documents import write_json

ALL = "authors, all tiles"


@dataclass
class Work:
    """What one frame's search asked of the networks.

    Attributes:
        views: (H, W, C) images whose features were extracted.
        pairs: index of the view, features of the tile.
        candidates: features of each tile that the prior leaves.
    """

    views: list[Image] = field(default_factory=list)
    pairs: list[tuple[int, Found]] = field(default_factory=list)
    candidates: list[Found] = field(default_factory=list)


class Watched:
    """Extractor and matcher that keep what they were asked for, while ``work`` is set."""

    def __init__(self, extractor: ExtractorLike, matcher: SeveralMatcher) -> None:
        self._extractor, self._matcher = extractor, matcher
        self.work: Work | None = None

    def extract(self, image: Image) -> Features:
        """Extract."""
        if self.work is not None:
            self.work.views.append(image.reshape(*image.shape[:2], -1).copy())
        return self._extractor.extract(image)

    @property
    def batch(self) -> int:
        """Pairs at a time."""
        return self._matcher.batch

    def match(self, query: Features, reference: Features) -> Matches:
        """Match a view with a tile."""
        return self.match_several([(query, reference)])[0]

    def match_several(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        """Match views with tiles."""
        if self.work is not None:
            for _, reference in pairs:
                self.work.pairs.append((len(self.work.views) - 1, _found(reference)))
        return self._matcher.match_several(pairs)


def _found(features: Features) -> Found:
    return {"keypoints": features.keypoints, "descriptors": features.descriptors}


def candidates(store: MapStore, prior: Prior, optics: Optics) -> list[Found]:
    """Return the features of each tile that a prior leaves, without regard to what is seen."""
    todo = plan(prior, optics, store.info)
    ids, _ = within(store, todo.level, todo.region)
    return [_found(store.load(int(id)).features) for id in ids]


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[MapStore, Networks, Watched]]:
    """Open the map and the engines that it needs."""
    store = MapStore(args.map)
    info = store.info
    values = {
        "model": info.model, "max_keypoints": info.max_keypoints, "color": info.color,
        "detection_threshold": info.detection_threshold, "runtime": args.runtime,
        "device": args.device, "precision": args.precision, "threads": args.threads,
    }  # fmt: skip
    networks = Networks(engine_settings(Settings.from_mapping(values), info.tile_px))
    try:
        extractor = networks.extractor(info.max_keypoints)
        matcher = networks.matcher("lighterglue", info.max_keypoints, PAIRS_AT_ONCE)
        yield store, networks, Watched(extractor, matcher)
    finally:
        networks.close()
        store.close()


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Race both over all frames."""
    with opened(args) as (store, networks, watched):
        info = store.info
        size = (info.tile_px, info.tile_px)
        localizer = FrameLocalizer(
            store, watched, watched, size, store.describe, threads=args.threads
        )
        records = read_frames(args.frames, info)
        priors = PriorMaker(PriorOptions(position_sigma=args.prior_sigma))
        camera = args.frames / "camera.json"
        lens = read_camera(camera) if camera.is_file() else None
        frames, tasks, fixes, stages = [], [], 0, []
        for record in records:
            image = read_image(record.path, "rgb" if info.color == "rgb" else "mono")
            wide = image.shape[1]
            if lens is not None:
                optics = Optics(lens)
            elif record.focal is not None:
                optics = Optics.of_focal(wide, image.shape[0], record.focal * wide, 0.05)
            else:
                optics = Optics.assumed(wide, image.shape[0])
            frames.append((image, priors.of(record), optics))
            watched.work = Work(candidates=candidates(store, *frames[-1][1:]))
            fixes += localizer.locate(*frames[-1]).fix is not None
            tasks.append(watched.work)
        watched.work = None
        config = BuildConfig(
            width=info.tile_px, height=info.tile_px, max_keypoints=info.max_keypoints,
            detection_threshold=info.detection_threshold, device=args.device,
            precision=args.precision, threads=args.threads,
        )  # fmt: skip
        reference = Reference(config)
        on_gpu = args.device != "cpu"

        def ours(index: int) -> None:
            stages.append(localizer.locate(*frames[index]).timings)

        def theirs(index: int) -> None:
            work = tasks[index]
            found = [reference.extract(view) for view in work.views]
            for view, tile in work.pairs:
                reference.match(found[view], tile, size, prune=not on_gpu)

        def theirs_of_all(index: int) -> None:
            work = tasks[index]
            for view in work.views:
                found = reference.extract(view)
                for tile in work.candidates:
                    reference.match(found, tile, size, prune=not on_gpu)

        timings = race(
            {"ours": ours, "authors": theirs, ALL: theirs_of_all},
            len(frames), args.rounds, pause=args.pause,
        )  # fmt: skip
        measured = stages[-args.rounds * len(frames) :]
        return {
            "map": f"{args.map.name}, K = {info.max_keypoints}, {info.levels[0]:.3f} m/px",
            "frames": len(frames),
            "fixes": fixes,
            "views_mean": float(np.mean([len(work.views) for work in tasks])),
            "pairs_mean": float(np.mean([len(work.pairs) for work in tasks])),
            "candidates_mean": float(np.mean([len(work.candidates) for work in tasks])),
            "prior_sigma_m": args.prior_sigma,
            "runtime": str(networks.handles[0].readback),
            "machine": machine(),
            "latency_ms": as_report(timings),
            "stages_ms": {
                name: 1e3 * float(np.mean([stage[name] for stage in measured]))
                for name in measured[0]
            },
            "times_faster_than_authors": ratio(timings, "authors", "ours"),
            "times_faster_than_authors_on_all_tiles": ratio(timings, ALL, "ours"),
        }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time of a fix beside the authors' code.")
    parser.add_argument("map", type=Path)
    parser.add_argument("frames", type=Path, help="folder with frames.csv")
    parser.add_argument("--prior-sigma", type=float, default=75.0, help="m (75)")
    parser.add_argument("--rounds", type=int, default=3, help="passes over the frames (3)")
    parser.add_argument("--pause", type=float, default=0.25, help="s before each turn (0.25)")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    parser.add_argument("--threads", type=int, default=0, help="0 = as many as cores")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = measure(args)
    if args.json is not None:
        write_json(args.json, report)
    for name, timing in report["latency_ms"].items():
        print(f"{name:{len(ALL)}} p50 {timing['p50']:8.1f} ms  p95 {timing['p95']:8.1f} ms")
    print("stages     " + "  ".join(f"{k} {v:.1f}" for k, v in report["stages_ms"].items()))
    print(
        f"{report['fixes']} of {report['frames']} frames fixed, {report['views_mean']:.1f} views "
        f"and {report['pairs_mean']:.1f} pairs each; the authors' code takes "
        f"{report['times_faster_than_authors']['p50']:.2f} times as long, and "
        f"{report['times_faster_than_authors_on_all_tiles']['p50']:.2f} times as long over all "
        f"{report['candidates_mean']:.1f} tiles that the prior leaves"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
