"""``gdi compile``: prepare an engine ahead of the flight, as the node would on configure."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gps_denied_inference.parameter import Parameter
from gps_denied_inference.settings import Settings

if TYPE_CHECKING:
    from gps_denied_inference.runtimes.selection import Selection

HELP = (
    "Prepare an engine for this machine and store it in the engine cache, where a node with the "
    "same settings finds it (engine_policy 'load_only' included)."
)

_ROWS = {row.name: row for row in Settings.table()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; defaults and bounds are the node's own."""
    parser.add_argument("model", metavar="MODEL", help="a name from 'gdi models list'")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="instead of the published")
    for flag, name in (
        ("--runtime", "runtime"),
        ("--device", "device"),
        ("--precision", "precision"),
        ("--width", "image_width"),
        ("--height", "image_height"),
        ("--color", "color"),
        ("--keypoints", "max_keypoints"),
        ("--threshold", "detection_threshold"),
        ("--batch", "engine_batch"),
    ):
        row = _ROWS[name]
        parser.add_argument(
            flag,
            dest=name,
            type=type(row.default),
            choices=row.choices or None,
            default=row.default,
            help=_help(row),
        )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="runtime-specific build option; may be given again",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="8.9",
        help="build for another computer's GPU (runtime tensorrt, with TensorRT for RTX only)",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="engine cache folder")
    parser.add_argument("--force", action="store_true", help="build even if it is there")
    parser.add_argument(
        "--load", action="store_true", help="also load it, and say what really runs"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def run(args: argparse.Namespace) -> int:
    """Build or find the engine and say where it lies."""
    from tqdm import tqdm

    from gps_denied_inference.engines.cache import EngineCache
    from gps_denied_inference.engines.manifest import TARGET_OPTION
    from gps_denied_inference.errors import StorageError
    from gps_denied_inference.models import zoo
    from gps_denied_inference.runtimes import create_runtime
    from gps_denied_inference.runtimes.contract import BuildConfig
    from gps_denied_inference.runtimes.selection import select
    from gps_denied_inference.runtimes.table import find
    from gps_denied_inference.storage.documents import write_json

    for name, row in _ROWS.items():
        if name in vars(args):
            row.check(getattr(args, name))
    options = _options(args.option)
    if args.compute_capability:
        options[TARGET_OPTION] = args.compute_capability
        selection = _elsewhere(args)
    else:
        precisions = zoo.get(args.model).precisions
        selection = select(args.runtime, args.device, args.precision, precisions=precisions)
    for passed_over, reason in selection.passed_over:
        print(f"not {passed_over}: {reason}")
    model = zoo.resolve(
        args.model, weights=args.weights, need_weights=find(selection.runtime)[0].needs_weights
    )
    config = BuildConfig(
        height=args.image_height,
        width=args.image_width,
        channels=1 if args.color == "mono" else 3,
        max_keypoints=args.max_keypoints,
        detection_threshold=args.detection_threshold,
        precision=selection.precision,
        device=selection.device,
        batch=max(args.engine_batch, 1),
        options=options,
    )
    cache = EngineCache(args.cache)
    runtime = create_runtime(
        selection.runtime,
        cache=cache,
        policy="rebuild" if args.force else "build_if_needed",
    )
    started = time.perf_counter()
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(total=1.0, disable=None, bar_format="{desc} {bar} {percentage:3.0f}%") as bar:

        def progress(share: float, what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.n = min(max(share, 0.0), 1.0)
            bar.refresh()

        entry = runtime.compile_engine(model, config, progress)
        built = bar.n > 0
    elapsed = time.perf_counter() - started
    try:
        cache.keep(entry.artifact)
    except StorageError as error:  # found in a cache that cannot be written, so nor pruned
        print(f"note: not marked as prepared: {error}")
    manifest = entry.manifest
    print(f"engine    {entry.artifact}")
    print(f"size      {manifest.artifact_size / 1e6:.1f} MB, SHA-256 {manifest.artifact_sha256}")
    print(
        f"for       {manifest.runtime_id} {manifest.runtime_version}, "
        f"{manifest.device_name}, {manifest.precision}"
    )
    print(f"{'built in ' if built else 'found in'}  {elapsed:.2f} s")
    report = {
        "engine": entry.artifact,
        "built": built,
        "seconds": elapsed,
        "selection": {
            "runtime": selection.runtime,
            "device": selection.device,
            "precision": selection.precision,
            "passed_over": dict(selection.passed_over),
        },
        "manifest": manifest_report(manifest.to_json()),
    }
    if args.load:
        handle = runtime.deserialize_engine(entry)
        try:
            back = handle.readback
            print(f"runs on   {back.provider}, {back.device}, {back.precision}")
            print(f"loaded in {handle.load_time:.2f} s")
            report["load_seconds"] = handle.load_time
            report["readback"] = dict(vars(back))
        finally:
            runtime.release_engine(handle)
    if args.json:
        write_json(args.json, report)
    return 0


def manifest_report(text: bytes) -> object:
    """Return a manifest as plain data for a JSON report."""
    import json

    return json.loads(text)


def _elsewhere(args: argparse.Namespace) -> Selection:
    """Return the choice for another computer: this one's devices say nothing about it."""
    from gps_denied_inference.errors import InvalidParameterError
    from gps_denied_inference.models import zoo
    from gps_denied_inference.runtimes.selection import AUTO, Selection, automatic_precision

    if args.runtime != "tensorrt":
        raise InvalidParameterError("runtime", args.runtime, "'tensorrt' with --compute-capability")
    device = "cuda:0" if args.device == AUTO else args.device
    precision = args.precision
    if precision == AUTO:
        precision = automatic_precision("cuda", zoo.get(args.model).precisions)
    return Selection("tensorrt", device, precision)


def _help(row: Parameter) -> str:
    unit = f" [{row.unit}]" if row.unit else ""
    return f"{row.description}{unit} Default: {row.default}.".replace("%", "%%")


def _options(words: list[str]) -> dict[str, str]:
    from gps_denied_inference.errors import InvalidParameterError

    options = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not (name and separator):
            raise InvalidParameterError("option", word, "NAME=VALUE")
        options[name] = value
    return options
