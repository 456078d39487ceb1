"""``gdi map``: prepare a map from a raster, look at it, check it."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gps_denied_inference.errors import ConfigurationError
from gps_denied_inference.settings import Settings

if TYPE_CHECKING:
    from gps_denied_inference.maps.store import MapStore

HELP = (
    "Prepare the map that task 'localize' finds frames on: from a GeoTIFF, web tiles (a folder "
    "z/x/y, MBTiles, PMTiles) or an image whose place is given. Preparation goes on where it "
    "stopped when the same command is run again."
)
_ROWS = {row.name: row for row in Settings.table()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    prepare = actions.add_parser("prepare", help="make a map, or finish one that was begun")
    prepare.add_argument("source", type=Path, help="raster file, or folder of tiles z/x/y")
    prepare.add_argument("-o", "--output", type=Path, required=True, metavar="MAP", help="the map")
    place = prepare.add_argument_group("an image that does not say where it lies")
    place.add_argument("--corners", type=Path, metavar="CSV", help="table corner,lon,lat")
    place.add_argument("--gsd-of-image", type=float, metavar="M", help="m/px, north-up, with")
    place.add_argument("--origin", metavar="LAT,LON", help="of the image's middle, degrees")
    levels = prepare.add_argument_group("which ground sampling distances")
    levels.add_argument(
        "--gsd", type=float, nargs="+", default=[], metavar="M", help="m/px of each level"
    )
    levels.add_argument("--height-min", type=float, metavar="M", help="lowest flight, above ground")
    levels.add_argument("--height-max", type=float, metavar="M", help="highest flight")
    levels.add_argument("--fx", type=float, metavar="PX", help="focal length of the camera")
    levels.add_argument("--width", type=int, metavar="PX", help="longer side of its frames")
    prepare.add_argument("--tile", type=int, default=512, metavar="PX", help="side of a tile (512)")
    prepare.add_argument("--overlap", type=float, default=0.5, help="of neighbours (0.5)")
    prepare.add_argument("--attribution", default="", help="whom the map is owed to")
    prepare.add_argument("--keypoints", type=int, default=1024, metavar="K", help="a tile (1024)")
    prepare.add_argument("--model", default="xfeat", help="feature extractor (xfeat)")
    for name in ("runtime", "device", "precision", "color", "engine_cache_directory"):
        row = _ROWS[name]
        prepare.add_argument(f"--{name.replace('_', '-')}", default=row.default, help=row.bound)
    prepare.add_argument("--jobs", type=int, default=1, help="processes on this machine (1)")
    prepare.add_argument("--dask", default="", metavar="ADDRESS", help="of a Dask scheduler")
    for name, text in (
        ("info", "say what a map is"),
        ("verify", "check every byte of a map"),
        ("show", "draw a map's tiles and their features"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("map", type=Path)
        if name == "show":
            action.add_argument("-o", "--output", type=Path, required=True, metavar="PNG")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    if args.action == "prepare":
        return _prepare(args)
    from gps_denied_inference.maps.store import MapStore

    store = MapStore(args.map)
    try:
        if args.action == "info":
            print("\n".join(summary(store)))
        elif args.action == "verify":
            _verify(store)
        else:
            from gps_denied_inference.maps.picture import draw

            draw(store, args.output)
            print(f"written: {args.output}")
    finally:
        store.close()
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from gps_denied_inference.maps.making import Source
    from gps_denied_inference.maps.prepare import describe_map, engine_settings, prepare

    source = Source(args.source, args.corners, args.gsd_of_image, _origin(args.origin))
    settings = engine_settings(
        Settings.from_mapping(
            {
                "model": args.model,
                "max_keypoints": args.keypoints,
                "runtime": args.runtime,
                "device": args.device,
                "precision": args.precision,
                "color": args.color,
                "engine_cache_directory": args.engine_cache_directory,
            }
        ),
        args.tile,
    )
    settings.validate()
    levels = _levels(args, source)
    info = describe_map(source, settings, levels, args.overlap, args.attribution)
    print(f"levels    {', '.join(f'{gsd:g}' for gsd in info.levels)} m/px, from {info.crs}")
    started = time.perf_counter()
    with tqdm(total=0, desc="tiles", unit="tile", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        outcome = prepare(
            source, args.output, info, settings, jobs=args.jobs, dask=args.dask, progress=show
        )
    elapsed = time.perf_counter() - started
    left_out = "".join(f", {count} {reason}" for reason, count in outcome.skipped.items())
    print(f"tiles     {outcome.tiles}{left_out}; {outcome.made} in this run, {elapsed:.1f} s")
    print(f"size      {outcome.bytes_per_tile / 1e3:.1f} kB a tile")
    print(f"map       {args.output}, content {outcome.content_sha256}")
    return 0


def _levels(args: argparse.Namespace, source: object) -> tuple[float, ...]:
    from gps_denied_inference.maps.making import Source
    from gps_denied_inference.maps.prepare import levels_for

    heights = (args.height_min, args.height_max, args.fx, args.width)
    if args.gsd and any(value is not None for value in heights):
        raise ConfigurationError("--gsd and flight heights exclude each other")
    if all(value is None for value in heights):
        return tuple(args.gsd)
    if any(value is None for value in heights):
        raise ConfigurationError("--height-min, --height-max, --fx and --width go together")
    assert isinstance(source, Source)
    raster = source.open()
    try:
        native = raster.native_gsd
    finally:
        raster.close()
    return levels_for(*heights[:3], args.width, args.tile, native)


def _origin(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        latitude, longitude = (float(word) for word in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"--origin '{text}': give LAT,LON in degrees") from error
    return latitude, longitude


def _verify(store: MapStore) -> None:
    from tqdm import tqdm

    for _ in tqdm(store.verify(), total=store.tile_count, desc="verify", unit="tile", disable=None):
        pass
    print(f"{store.path}: {store.tile_count} tiles, every byte as sealed ({store.sha256})")


def summary(store: MapStore) -> list[str]:
    """Return lines for people."""
    info = store.info
    north_west = info.to_geodetic(info.west, info.north)
    south_east = info.to_geodetic(info.east, info.south)
    size = store.path.stat().st_size
    places = store.places()
    lines = [
        f"map         {store.path}, content {store.sha256}",
        f"source      {info.source} ({info.crs})",
        f"attribution {info.attribution or 'none given'}",
        f"area        {north_west[0]:.6f}, {north_west[1]:.6f} to {south_east[0]:.6f}, "
        f"{south_east[1]:.6f}; {info.east - info.west:.0f} x {info.north - info.south:.0f} m",
        f"model       {info.model} ({info.model_sha256[:12]}), K = {info.max_keypoints}, "
        f"{info.color}, tiles of {info.tile_px} px",
    ]
    for level, gsd in enumerate(info.levels):
        counts = [count for place, count in places if place.level == level]
        mean = sum(counts) / len(counts) if counts else math.nan
        lines.append(
            f"level {level}     {gsd:g} m/px, {len(counts)} tiles of {info.tile_px * gsd:.0f} m, "
            f"{mean:.0f} features each"
        )
    skipped = ", ".join(f"{count} {reason}" for reason, count in store.skipped.items())
    lines.append(f"left out    {skipped or 'nothing'}")
    lines.append(
        f"size        {size / 1e6:.1f} MB, {size / 1e3 / max(len(places), 1):.1f} kB a tile"
    )
    return lines
