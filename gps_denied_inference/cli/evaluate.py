"""``gdi evaluate``: how well frames are found on a map."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import ConfigurationError, InvalidParameterError
from gps_denied_inference.settings import Settings

if TYPE_CHECKING:
    from gps_denied_inference.evaluation.charts import Image
    from gps_denied_inference.evaluation.frames import FrameRecord
    from gps_denied_inference.evaluation.running import Outcome
    from gps_denied_inference.maps.store import MapStore
    from gps_denied_inference.pipeline.camera import CameraModel

HELP = (
    "Find frames on a map and hold what is found against where they were taken: errors, their "
    "covariance, wrong fixes, time. Frames are a folder with frames.csv, that table, or a folder "
    "of geotagged images."
)
_ROWS = {row.name: row for row in Settings.table()}
EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("map", type=Path, help="of 'gdi map prepare'")
    parser.add_argument("frames", type=Path, help="folder or table")
    priors = parser.add_argument_group("what is known of each frame; errors are drawn to match")
    priors.add_argument("--prior-sigma", type=float, metavar="M", help="of a position (none)")
    priors.add_argument(
        "--height-sigma", default="0.1", metavar="SHARE", help="of the height, or 'unknown' (0.1)"
    )
    priors.add_argument(
        "--heading", default="5", metavar="DEG", help="sigma of the heading, or 'unknown' (5)"
    )
    priors.add_argument(
        "--attitude-sigma", default="0.1", metavar="DEG",
        help="of the attitude where the frames have one, or 'unknown' (0.1)",
    )  # fmt: skip
    priors.add_argument("--seed", type=int, default=0, help="of those errors (0)")
    lens = parser.add_argument_group("the lens; without either, tags or a drone's common lens")
    lens.add_argument("--camera", type=Path, metavar="JSON", help="camera.json beside the frames")
    lens.add_argument("--fx", type=float, metavar="PX", help="focal length")
    parser.add_argument("--filter", action="store_true", help="follow the flight")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every n-th frame (1)")
    parser.add_argument("--limit", type=int, metavar="N", help="so many frames at most")
    parser.add_argument(
        "--wrong-beyond", type=float, default=25.0, metavar="M", help="a fix further off (25)"
    )
    parser.add_argument(
        "--map-sigma", type=float, default=_ROWS["map_sigma"].default, metavar="M",
        help="as the node's map_sigma: accuracy of the map (one pixel of its tiles)",
    )  # fmt: skip
    parser.add_argument("--matcher", default="lighterglue", help="of features (lighterglue)")
    for name in ("runtime", "device", "precision", "threads", "engine_cache_directory"):
        row = _ROWS[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(row.default), default=row.default,
            help=row.bound,
        )  # fmt: skip
    parser.add_argument("--raster", type=Path, help="the map's picture, for the report")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the HTML report")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")


def run(args: argparse.Namespace) -> int:
    """Evaluate and report."""
    from tqdm import tqdm

    from gps_denied_inference.evaluation.frames import read_frames
    from gps_denied_inference.evaluation.score import row_of, summarise
    from gps_denied_inference.maps.store import MapStore
    from gps_denied_inference.storage.documents import write_json

    if args.every < 1:
        raise ConfigurationError(f"--every {args.every}: give 1 or more")
    store = MapStore(args.map)
    try:
        records = read_frames(args.frames, store.info)[:: args.every][: args.limit]
        lens = _lens(args)
        with tqdm(total=len(records), unit="frame", file=sys.stderr, disable=None) as bar:
            outcomes, about = _evaluate(args, store, records, lens, bar)
        figures = summarise(outcomes, args.wrong_beyond)
        rows = [row_of(outcome) for outcome in outcomes]
        if args.json is not None:
            write_json(args.json, {**figures, "about": about, "per_frame": rows})
        if args.out is not None:
            _write_report(args, store, outcomes, about, figures, rows)
    finally:
        store.close()
    print(_text(about, figures))
    return 0


def _evaluate(
    args: argparse.Namespace, store: MapStore, records: Sequence[FrameRecord],
    lens: CameraModel | float | None,
    bar: Any,
) -> tuple[list[Outcome], dict[str, Any]]:  # fmt: skip
    from gps_denied_inference.evaluation.priors import PriorOptions
    from gps_denied_inference.evaluation.running import Runner
    from gps_denied_inference.maps.prepare import engine_settings
    from gps_denied_inference.models import zoo
    from gps_denied_inference.networks import Networks
    from gps_denied_inference.pipeline.localization.hunt import PAIRS_AT_ONCE
    from gps_denied_inference.pipeline.localization.localizer import FrameLocalizer, Search

    info = store.info
    values = {
        "model": info.model, "max_keypoints": info.max_keypoints, "color": info.color,
        "detection_threshold": info.detection_threshold, "runtime": args.runtime,
        "device": args.device, "precision": args.precision, "threads": args.threads,
        "engine_cache_directory": args.engine_cache_directory, "matcher": args.matcher,
    }  # fmt: skip
    settings = engine_settings(Settings.from_mapping(values), info.tile_px)
    networks = Networks(settings, lambda share, what: bar.set_description_str(what))
    try:
        extractor = networks.extractor(info.max_keypoints)
        matcher = networks.matcher(args.matcher, info.max_keypoints, PAIRS_AT_ONCE)
        localizer = FrameLocalizer(
            store,
            extractor,
            matcher,
            (info.tile_px, info.tile_px),
            store.describe,
            Search(map_sigma=_map_sigma(args.map_sigma)),
            settings.threads,
        )
        priors = PriorOptions(
            args.prior_sigma, _sigma(args.height_sigma, "--height-sigma"),
            _sigma(args.heading, "--heading"), _sigma(args.attitude_sigma, "--attitude-sigma"),
            args.seed,
        )  # fmt: skip
        cosine = zoo.get(info.model).min_cosine
        runner = Runner(localizer, extractor, "rgb" if info.color == "rgb" else "mono", priors,
                        lens, args.filter, cosine)  # fmt: skip
        bar.set_description_str("")
        outcomes = runner.run(records, lambda outcome: bar.update(1))
        readback = networks.handles[0].readback
    finally:
        networks.close()
    about = {
        "map": args.map.name,
        "map_content": store.sha256[:12],
        "levels_m_per_px": [round(gsd, 4) for gsd in info.levels],
        "model": f"{info.model}, K = {info.max_keypoints}, {args.matcher}",
        "frames": str(args.frames),
        "lens": _lens_in_words(lens, records),
        "priors": vars(priors),
        "filter": args.filter,
        "runtime": f"{readback.runtime} {readback.version}, {readback.device}",
    }
    return outcomes, about


def _map_sigma(sigma: float) -> float:
    row = _ROWS["map_sigma"]
    try:
        row.check(sigma)
    except InvalidParameterError as error:
        raise ConfigurationError(f"--map-sigma {sigma}: give {row.bound}") from error
    return sigma


def _sigma(text: str, option: str) -> float | None:
    if text == "unknown":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise ConfigurationError(f"{option} {text}: give a sigma above 0, or 'unknown'")
    return value


def _lens(args: argparse.Namespace) -> CameraModel | float | None:
    """Return the lens that holds for all frames."""
    from gps_denied_inference.evaluation.frames import read_camera

    if args.fx is not None:
        if not args.fx > 0.0:
            raise ConfigurationError(f"--fx {args.fx}: give a focal length above 0 px")
        return float(args.fx)
    if args.camera is not None:
        return read_camera(args.camera)
    folder = args.frames if args.frames.is_dir() else args.frames.parent
    beside = folder / "camera.json"
    return read_camera(beside) if beside.is_file() else None


def _lens_in_words(lens: CameraModel | float | None, records: Sequence[FrameRecord]) -> str:
    if isinstance(lens, float):
        return f"ideal, fx {lens:g} px"
    if lens is not None:
        return f"calibrated, fx {lens.matrix[0, 0]:g} px"
    if any(record.focal for record in records):
        return "each image's tags"
    return "not known: a drone's common 0.74 of the width is assumed, sigma 13 %"


def _write_report(
    args: argparse.Namespace, store: MapStore, outcomes: Sequence[Outcome],
    about: dict[str, Any], figures: dict[str, Any],
    rows: Sequence[dict[str, Any]],
) -> None:  # fmt: skip
    from gps_denied_inference.evaluation import charts, page
    from gps_denied_inference.storage.documents import write_json, write_text

    backdrop = _backdrop(args, store)
    drawn = {
        "Share of all frames found to within an error":
            charts.error_cdf(outcomes, args.wrong_beyond),
        "Share of fixes inside so many sigmas": charts.consistency(outcomes),
        "Time of each stage": charts.stages(figures["stages_ms"]),
        "True and found places on the map":
            charts.track(store, outcomes, args.wrong_beyond, backdrop),
    }  # fmt: skip
    examples = _examples(outcomes, backdrop)
    title = f"{args.frames.name} on {args.map.name}"
    write_text(args.out / "report.html", page.render(title, about, figures, drawn, examples, rows))
    write_json(args.out / "report.json", {**figures, "about": about, "per_frame": rows})
    print(f"written: {args.out / 'report.html'}")


def _backdrop(
    args: argparse.Namespace, store: MapStore
) -> tuple[Image, tuple[float, float, float, float]] | None:
    """Return the raster's picture with its bounds in map ENU; None where none is at hand."""
    import cv2

    from gps_denied_inference.images.files import read_image

    if args.raster is None:
        return None
    picture = read_image(args.raster, "mono")
    factor = min(1.0, 3000.0 / max(picture.shape[:2]))
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    info = store.info
    return small, (info.west, info.east, info.south, info.north)


def _examples(outcomes: Sequence[Outcome], backdrop: Any) -> list[tuple[str, bytes]]:
    """Return pictures of the best and the worst frames that have a place."""
    from gps_denied_inference.evaluation import charts
    from gps_denied_inference.images.files import read_image

    if backdrop is None:
        return []
    placed = [o for o in outcomes if o.attempt.fix is not None and o.error is not None]
    placed.sort(key=lambda o: o.error or 0.0)
    refused = sorted(
        (o for o in outcomes if o.attempt.fix is None and o.attempt.places),
        key=lambda o: -o.attempt.places[0].inliers,
    )[:EXAMPLES]
    chosen = [("best", o) for o in placed[:EXAMPLES]]
    chosen += [("worst", o) for o in placed[max(EXAMPLES, len(placed) - EXAMPLES) :][::-1]]
    chosen += [("refused", o) for o in refused]
    pictures = []
    for kind, outcome in chosen:
        frame = read_image(outcome.record.path, "mono")
        place = outcome.attempt.fix or outcome.attempt.places[0]
        said = f"{outcome.error:.1f} m off" if outcome.error is not None else ""
        caption = (
            f"{kind}: {outcome.record.path.name}, {said} {outcome.attempt.reason} "
            f"{place.inliers} inliers, {place.runner_up} at the next place"
        )
        pictures.append((caption, charts.overlay(outcome, frame, *backdrop)))
    return pictures


def _text(about: dict[str, Any], figures: dict[str, Any]) -> str:
    from gps_denied_inference.evaluation.page import words

    lines = [f"{key.replace('_', ' '):32}{words(value)}" for key, value in about.items()]
    lines += [f"{key.replace('_', ' '):32}{words(value)}" for key, value in figures.items()]
    return "\n".join(lines)
