"""``gdi cache``: what the engine cache holds, and pruning it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gps_denied_inference.engines.cache import EngineCache
    from gps_denied_inference.engines.maintenance import CachedEngine

HELP = "List or prune prepared engines."

_SIZES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_AGES = {"s": 1.0, "h": 3600.0, "d": 86400.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="list|prune", required=True)
    show = actions.add_parser("list", help="what is there, most recently used first")
    prune = actions.add_parser(
        "prune",
        help="remove old engines, and what killed builds left behind; what 'gdi compile' prepared "
        "or 'gdi sign' signed stays",
    )
    prune.add_argument("--max-age", type=_age, metavar="30d", help="not used for longer (s, h, d)")
    prune.add_argument(
        "--max-size", type=_size, metavar="2G", help="keep the newest up to this (k, M, G bytes)"
    )
    prune.add_argument(
        "--all", action="store_true", help="remove every engine that was built on demand"
    )
    for action in (show, prune):
        action.add_argument("--cache", type=Path, metavar="DIR", help="engine cache folder")
        action.add_argument("--json", type=Path, metavar="FILE", help="write a report")


def run(args: argparse.Namespace) -> int:
    """List or prune."""
    from gps_denied_inference.engines.cache import EngineCache
    from gps_denied_inference.storage.documents import write_json

    cache = EngineCache(args.cache)
    report = _prune(cache, args) if args.action == "prune" else _list(cache)
    if args.json:
        write_json(args.json, report)
    return 0


def _list(cache: EngineCache) -> dict[str, object]:
    from gps_denied_inference.engines.maintenance import entries

    found = entries(cache)
    now = time.time()
    for entry in found:
        age = (now - entry.last_used) / 86400
        print(f"{entry.size / 1e6:9.1f} MB  {age:6.1f} d  {entry.artifact or entry.folder}")
        print(f"    {_describe(entry)}")
    total = sum(entry.size for entry in found)
    print(f"{len(found)} engines, {total / 1e6:.1f} MB in {cache.root}")
    return {"root": cache.root, "bytes": total, "engines": [_report(entry) for entry in found]}


def _prune(cache: EngineCache, args: argparse.Namespace) -> dict[str, object]:
    from gps_denied_inference.engines.maintenance import entries, prune

    removed = prune(cache, max_bytes=0 if args.all else args.max_size, max_age=args.max_age)
    for entry in removed:
        print(f"removed {entry.folder.name} ({entry.size / 1e6:.1f} MB)")
    kept = [entry for entry in entries(cache) if entry.kept]
    for entry in kept:
        print(f"kept {entry.folder.name}: {entry.kept}")
    total = sum(entry.size for entry in removed)
    print(f"{len(removed)} engines, {total / 1e6:.1f} MB removed from {cache.root}")
    return {
        "root": cache.root,
        "bytes": total,
        "removed": [_report(entry) for entry in removed],
        "kept": [_report(entry) for entry in kept],
    }


def _describe(entry: CachedEngine) -> str:
    manifest = entry.manifest
    if manifest is None:
        return f"unusable: {entry.problem}"
    signed = f", signed by {manifest.signer[:16]}" if manifest.signer else ""
    return (
        f"{manifest.model} for {manifest.runtime_id} {manifest.runtime_version} on "
        f"{manifest.device_name}, {manifest.precision}, built {manifest.created}{signed}"
    )


def _report(entry: CachedEngine) -> dict[str, object]:
    from gps_denied_inference.cli.compile import manifest_report

    manifest = entry.manifest
    return {
        "folder": entry.folder,
        "engine": entry.artifact,
        "bytes": entry.size,
        "last_used": entry.last_used,
        "problem": entry.problem,
        "kept": entry.kept,
        "manifest": manifest_report(manifest.to_json()) if manifest else None,
    }


def _size(text: str) -> int:
    unit = text[-1:] if text[-1:] in ("k", "M", "G") else ""
    return int(_number(text.removesuffix(unit)) * _SIZES[unit])


def _age(text: str) -> float:
    unit = text[-1:]
    if unit not in _AGES:
        raise argparse.ArgumentTypeError(f"'{text}' needs a unit: s, h or d")
    return _number(text[:-1]) * _AGES[unit]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e15:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of 0 or more")
    return number
