"""``gdi demo``: the real node over a simulated or recorded flight, and a report of it."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import ConfigurationError, RuntimeUnavailableError, StorageError

if TYPE_CHECKING:
    from gps_denied_inference.demo.frame import Frame, FrameSource
    from gps_denied_inference.demo.report import MapPart
    from gps_denied_inference.demo.score import Pair

HELP = (
    "Start the real node as its own process, fly a source past it, and write report.json, "
    "report.html, features.png and matches.png. Without --source the flight is simulated over a "
    "Landsat 7 scene, so that the true motion is known. With --localize a second flight is found "
    "on a map of that scene, prepared in other light and colours: localization.png shows it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--source", metavar="PATH", help="folder of images, video or rosbag2")
    parser.add_argument("--topic", help="image topic, for a bag that has several")
    parser.add_argument("--frames", type=int, metavar="N", help="at most so many frames")
    parser.add_argument(
        "--localize",
        action="store_true",
        help="then fly over a map of the simulated scene and hold the positions against the truth",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="HZ",
        help="publish at this rate whatever the node does, instead of waiting for each answer",
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the report")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write report.json here too")
    parser.add_argument("--runtime", help="as the node's parameter, e.g. onnxruntime")
    parser.add_argument("--device", help="as the node's parameter, e.g. cpu")
    parser.add_argument("--precision", help="as the node's parameter, e.g. fp32")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of the node; may be given several times",
    )


def run(args: argparse.Namespace) -> int:
    """Fly, score, report; 1 when a frame is unaccounted for, or matches or positions disagree."""
    from gps_denied_inference.demo.report import build_report, write_report
    from gps_denied_inference.demo.score import Score
    from gps_denied_inference.demo.sources import open_source

    if args.frames is not None and args.frames < 1:
        raise ConfigurationError(f"--frames {args.frames}: at least 1")
    if args.rate is not None and not args.rate > 0:
        raise ConfigurationError(f"--rate {args.rate:g}: more than 0 Hz")
    if args.localize and args.source:
        raise ConfigurationError("--localize flies over the simulated scene: leave out --source")
    try:
        from gps_denied_inference.clients.demo_driver import fly
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"the demo runs the real node, and ROS 2 or the built package is missing ({error})",
            "run 'make demo', or source a ROS 2 installation and this package's workspace",
        ) from error

    parameters = _parameters(args)
    source = open_source(args.source, args.frames, args.topic, **_decoding(parameters))
    score = Score(source)
    out: Path = args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make folder {out}: {error.strerror}") from error
    with _Progress() as progress:
        flight = fly(
            source,
            parameters,
            out / "node.log",
            score.add,
            rate=args.rate,
            report=progress.report,
        )
    for name, refusal in source.refused.items():
        print(f"gdi: {name} is left out ({refusal.reason}): {refusal}", file=sys.stderr)
    for note in source.notes:
        print(f"gdi: {note}", file=sys.stderr)
    report = build_report(source, flight, score)
    over_map = _localize(args.frames, parameters, out) if args.localize else None
    written = write_report(out, report, score, _pictured(source, score.pair), over_map)
    if args.json is not None:
        from gps_denied_inference.storage.documents import write_json

        write_json(args.json, report)
    _print_summary(report)
    if over_map is not None:
        print(over_map.in_words)
    for line in report["findings"]:
        print(f"gdi: the task gave no result: {line}", file=sys.stderr)
    print("written: " + ", ".join(str(path) for path in written))
    for line in report["failures"]:
        print(f"demo failed: {line}", file=sys.stderr)
    return 1 if report["failures"] else 0


def _localize(frames: int | None, parameters: Mapping[str, str], out: Path) -> MapPart:
    """Prepare the map, fly over it, and hold what was found against the truth."""
    from gps_denied_inference.clients.map_flight_driver import fly_over_map
    from gps_denied_inference.demo import map_flight, map_pictures
    from gps_denied_inference.demo.report import MapPart
    from gps_denied_inference.demo.scene_map import FIGURE, engine_parameters, make_scene_map
    from gps_denied_inference.demo.simulation import STEEP, SimulatedFlight

    flight = SimulatedFlight(max(2, frames or FIGURE), manoeuvre=STEEP)
    with _Progress("fixes") as progress:
        path = make_scene_map(
            out,
            engine_parameters(parameters),
            lambda done, total: progress.report(f"preparing the map, {total} tiles", 0),
        )
        flown = fly_over_map(flight, path, parameters, out / "node_map.log", progress.report)
    summary = map_flight.summarise(flight, flown)
    return MapPart(
        summary,
        map_flight.failures(summary),
        map_flight.in_words(summary),
        map_pictures.draw(flight, flown),
    )


def _parameters(args: argparse.Namespace) -> dict[str, str]:
    parameters = {}
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise ConfigurationError(f"--set {pair}: give NAME=VALUE")
        parameters[name] = _as_typed(name, value)
    for name in ("runtime", "device", "precision"):
        if getattr(args, name) is not None:
            parameters[name] = getattr(args, name)
    return parameters


def _as_typed(name: str, text: str) -> str:
    """Write a double with its point, without which ROS takes 20 for an integer."""
    from gps_denied_inference.settings import Settings

    if any(row.name == name and row.type_name == "double" for row in Settings.table()):
        with contextlib.suppress(ValueError):
            return repr(float(text))
    return text


def _decoding(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the node's parameters that say how images are decoded, for the demo's own reading."""
    from gps_denied_inference.settings import Settings

    settings: dict[str, Any] = {}
    for row in Settings.table():
        if row.name in ("mono16_scaling", "max_image_pixels") and row.name in parameters:
            text = parameters[row.name]
            value = int(text) if row.type_name == "integer" and text.isdecimal() else text
            row.check(value)
            settings[row.name] = value
    names = {"mono16_scaling": "depth_scaling", "max_image_pixels": "max_pixels"}
    return {names[name]: value for name, value in settings.items()}


def _pictured(source: FrameSource, pair: Pair | None) -> dict[int, Frame]:
    """Return the two frames of the pictured pair, read once more from the source."""
    if pair is None:
        return {}
    index = pair.index
    found = {}
    for frame in source:
        if frame.index in (index, index + 1):
            found[frame.index] = frame
        if frame.index > index:
            break
    return found


def _print_summary(report: Mapping[str, Any]) -> None:
    frames, matches, latency = report["frames"], report["matches"], report["latency_ms"]
    runtime, model, features = report["runtime"], report["model"], report["features"]
    end_to_end = latency["end_to_end"]
    print(
        f"{model['name']} on {runtime['name']} ({runtime['provider']}, {runtime['device']}, "
        f"{runtime['precision']})\n"
        f"frames: {frames['published']} published, {frames['answered']} answered, "
        f"{frames['dropped']} dropped, {frames['unaccounted']} unaccounted for"
    )
    if frames["unreadable"]:
        print(f"images left out as unreadable: {frames['unreadable']}")
    if not frames["answered"]:
        return
    print(
        f"latency: {end_to_end['p50']:.1f} ms p50, {end_to_end['p95']:.1f} ms p95, "
        "from publishing a frame to its features\n"
        f"features: {features['per_frame']:.0f} per frame"
    )
    if not matches["pairs"]:
        print("matches: none, since no two successive frames were answered")
    elif not matches["count"]:
        print(f"matches: none in {matches['pairs']} pairs of frames")
    else:
        print(
            f"matches: {matches['per_pair']:.0f} per pair of frames, "
            f"{matches['agreeing_share']:.1%} agree with the {matches['held_against']} "
            f"within {matches['threshold_px']:g} px"
        )
        if not math.isnan(matches["agreeing_share_on_roofs"]):
            print(
                f"         {matches['agreeing_share_on_ground']:.1%} of those on flat ground, "
                f"{matches['agreeing_share_on_roofs']:.1%} of those on roofs"
            )


class _Progress:
    """One live line on stderr while it is a terminal, one line per step elsewhere."""

    def __init__(self, counted: str = "frames answered") -> None:
        self._counted = counted
        self._step = ""
        self._is_live = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._is_live:
            sys.stderr.write("\r\033[K")

    def report(self, step: str, count: int) -> None:
        """Show what is being done and how far it is."""
        line = f"{step}: {count} {self._counted}" if count else step
        if self._is_live:
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()
        elif step != self._step:
            print(step, file=sys.stderr)
        self._step = step
