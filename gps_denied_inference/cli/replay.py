"""``gdi replay``: a rosbag2 through the node's pipeline, without ROS, results as MCAP."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gps_denied_inference.errors import ConfigurationError

if TYPE_CHECKING:
    from gps_denied_inference.bags.replay import ReplayResult
    from gps_denied_inference.parameter import Parameter

HELP = (
    "Run every image of a rosbag2 (db3 or mcap) through the same pipeline as the node's, as fast "
    "as it goes and without ROS, and write features (and matches, and the clouds of tracks) as a "
    "rosbag2 in MCAP."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bag", type=Path, help="folder of the bag, or its .db3 or .mcap file")
    parser.add_argument("--topic", help="image topic, for a bag that has several")
    parser.add_argument(
        "--out", type=Path, help="folder of the new bag (BAG_features beside the bag)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter as of the node, e.g. task=track; may be given several times",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def run(args: argparse.Namespace) -> int:
    """Replay and report; 1 when no image gave features."""
    from tqdm import tqdm

    from gps_denied_inference.bags.layout import beside
    from gps_denied_inference.bags.reader import Bag
    from gps_denied_inference.bags.replay import replay
    from gps_denied_inference.settings import Settings
    from gps_denied_inference.storage.documents import write_json

    rows = {row.name: row for row in Settings.table()}
    settings = Settings.from_mapping(dict(_parse(pair, rows) for pair in args.set))
    bag = Bag(args.bag, args.topic)
    out: Path = args.out or beside(args.bag, "_features")
    with tqdm(total=len(bag), unit=" frames", file=sys.stderr, disable=None) as bar:
        result = replay(
            bag,
            settings,
            out,
            on_frame=lambda frames: bar.update(frames - bar.n),
            progress=lambda share, what: bar.set_description_str(what),
        )
    for note in result.notes:
        print(f"gdi: {note}", file=sys.stderr)
    for line in result.findings:
        print(f"gdi: task '{settings.task}' gave no result: {line}", file=sys.stderr)
    report = _report(args.bag, bag.topic, out, result)
    if args.json is not None:
        write_json(args.json, report)
    print(
        f"{report['frames']['replayed']} frames of {bag.topic}, "
        f"{report['frames']['answered']} answered, {report['frames']['dropped']} dropped, in "
        f"{result.duration:.2f} s ({report['times_real_time']:.1f} times real time)\n"
        f"written: {out}"
    )
    if result.answered == 0:
        print(f"gdi: replay gave no features: {dict(result.drops)}", file=sys.stderr)
        return 1
    return 0


def _parse(pair: str, rows: dict[str, Parameter]) -> tuple[str, object]:
    """Return the name and the value of a ``NAME=VALUE``, typed as the parameter is.

    A value that is not of the type stays a string, which the parameter's own check then refuses.
    """
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--set {pair}: give NAME=VALUE")
    kind = rows[name].type_name if name in rows else "string"
    if kind == "bool":
        return name, {"true": True, "false": False}.get(text, text)
    try:
        return name, {"integer": int, "double": float}.get(kind, str)(text)
    except ValueError:
        return name, text


def _report(bag: Path, topic: str, out: Path, result: ReplayResult) -> dict[str, Any]:
    readback = result.readback
    assert readback is not None, "a replay that returned has loaded an engine"
    return {
        "bag": bag,
        "topic": topic,
        "out": out,
        "notes": result.notes,
        "findings": result.findings,
        "frames": {
            "replayed": result.frames,
            "answered": result.answered,
            "dropped": sum(result.drops.values()),
            "drop_reasons": dict(result.drops),
        },
        "recorded_s": result.recorded,
        "duration_s": result.duration,
        "times_real_time": result.recorded / result.duration if result.duration else float("nan"),
        "latency_ms": result.latency_ms(),
        "runtime": {
            "name": readback.runtime,
            "version": readback.version,
            "provider": readback.provider,
            "device": readback.device,
            "precision": readback.precision,
        },
        "model": {"name": result.model, "sha256": result.model_sha256},
    }
