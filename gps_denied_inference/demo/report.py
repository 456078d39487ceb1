"""The demo's report: what it says, whether that is good enough, and how it is written."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gps_denied_inference.demo.flight import Flight
from gps_denied_inference.demo.frame import Frame, FrameSource
from gps_denied_inference.demo.pictures import (
    draw_features,
    draw_matches,
    encode_png,
    write_picture,
)
from gps_denied_inference.demo.score import Score
from gps_denied_inference.storage.documents import write_json, write_text

LEAST_AGREEING_SHARE = 0.70
"""With less of the matches agreeing with the known true motion, the demo has failed."""


@dataclass(frozen=True)
class MapPart:
    """What the flight over the map adds to the report.

    Attributes:
        summary: the report's ``localization``.
        failures: one line for everything that is not as it should be.
        in_words: for a terminal.
        picture: PNG.
    """

    summary: Mapping[str, Any]
    failures: Sequence[str]
    in_words: str
    picture: bytes


def build_report(source: FrameSource, flight: Flight, score: Score) -> dict[str, Any]:
    """Return the content of report.json; not measured = NaN, written as null."""
    status = flight.status
    stages = {
        ("in_node" if stage == "end_to_end" else stage): _milliseconds(*values)
        for stage, values in status.stages.items()
    }
    percentiles = (
        np.percentile(flight.latencies, (50, 95)) if flight.latencies else (np.nan, np.nan)
    )
    report: dict[str, Any] = {
        "source": {
            "kind": source.kind,
            "name": source.name,
            "note": "; ".join(filter(None, [source.note, *source.notes])),
        },
        "frames": {
            "published": flight.published,
            "answered": flight.answered,
            "dropped": flight.dropped,
            "drop_reasons": dict(status.drops),
            "unaccounted": flight.unaccounted,
            "unreadable": len(source.refused),
            "unreadable_reasons": dict(Counter(e.reason for e in source.refused.values())),
        },
        "latency_ms": {"end_to_end": _milliseconds(*map(float, percentiles)), **stages},
        "runtime": {
            "name": status.runtime,
            "provider": status.provider,
            "device": status.device,
            "precision": status.precision,
            "selection": status.selection,
        },
        "model": {
            "name": status.model,
            "sha256": status.model_sha256,
            "engine_sha256": status.engine_sha256,
        },
        "features": {
            "per_frame": float(np.mean(score.counts)) if score.counts else float("nan"),
            "least": min(score.counts, default=0),
            "most": max(score.counts, default=0),
        },
        "matches": score.summary(),
        "node": {
            "configure_s": flight.configure_time,
            "engine_load_s": status.engine_load_time,
            "exit_code": flight.exit_code,
        },
        "duration_s": flight.duration,
    }
    report["findings"] = list(flight.findings)
    report["failures"] = failures(report)
    return report


def failures(report: Mapping[str, Any]) -> list[str]:
    """Return one line for everything in the report that is not as it should be."""
    found = []
    frames, matches = report["frames"], report["matches"]
    if frames["published"] == 0 and frames["unreadable"]:
        found.append(f"none of the source's {frames['unreadable']} images can be read")
    elif frames["answered"] == 0:
        found.append(f"none of the {frames['published']} published frames was answered")
    if frames["unaccounted"] != 0:
        found.append(
            f"{frames['unaccounted']} of {frames['published']} published frames were neither "
            f"answered ({frames['answered']}) nor counted as dropped ({frames['dropped']})"
        )
    if matches["held_against"] == "true motion" and matches["pairs"]:
        share = matches["agreeing_share"]
        if not share >= LEAST_AGREEING_SHARE:
            found.append(
                f"{share:.1%} of the matches agree with the true motion within "
                f"{matches['threshold_px']:g} px, not {LEAST_AGREEING_SHARE:.0%}"
            )
    if report["node"]["exit_code"] != 0:
        found.append(f"the node's process ended with exit code {report['node']['exit_code']}")
    return found


def write_report(
    folder: Path,
    report: dict[str, Any],
    score: Score,
    frames: Mapping[int, Frame],
    over_map: MapPart | None = None,
) -> list[Path]:
    """Write report.json, report.html and, where two successive frames were answered, pictures.

    Args:
        report: of :func:`build_report`; takes what ``over_map`` adds.
        frames: the two frames of ``score.pair``, by index.
        over_map: of the flight over the map, if there was one.

    Raises:
        StorageError: the folder is not writable, or the disk is full.
    """
    pictures: dict[str, bytes] = {}
    if score.pair is not None:
        first, second = (frames[score.pair.index + step].image for step in (0, 1))
        pictures["features.png"] = encode_png(draw_features(first, score.pair))
        pictures["matches.png"] = encode_png(draw_matches(first, second, score.pair))
    if over_map is not None:
        pictures["localization.png"] = over_map.picture
        report["localization"] = over_map.summary
        report["failures"] = [*report["failures"], *over_map.failures]
    for name, png in pictures.items():
        write_picture(folder / name, png)
    write_text(folder / "report.html", render_html(report, pictures, score.shares))
    write_json(folder / "report.json", report)
    return [folder / name for name in ("report.json", "report.html", *pictures)]


def _milliseconds(p50: float, p95: float) -> dict[str, float]:
    return {"p50": 1e3 * p50, "p95": 1e3 * p95}


def render_html(
    report: Mapping[str, Any], pictures: Mapping[str, bytes], shares: list[float]
) -> str:
    """Return one page that needs no other file."""
    verdict = report["failures"] or ["every published frame is accounted for"]
    captions = {
        "features.png": "Features of one frame; brighter means a higher score",
        "matches.png": "Matches of two successive frames: green agree with the motion, red do not",
        "localization.png": "A second flight, found on a map without GPS. The map shows the scene "
        "in another day's light and colours; the node is told height and attitude, with errors, "
        "and never the position",
    }
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        "<title>gps_denied_inference demo</title>",
        f"<style>{_STYLE}</style><h1>gps_denied_inference demo</h1>",
        f"<p class='{'bad' if report['failures'] else 'good'}'>",
        "<br>".join(html.escape(line) for line in verdict),
        "</p>",
        *(f"<p>the task gave no result: {html.escape(line)}</p>" for line in report["findings"]),
        f"<p>{html.escape(report['source']['kind'])}: {html.escape(report['source']['name'])}",
        f" {html.escape(report['source']['note'])}</p>",
    ]
    for name, png in pictures.items():
        data = base64.b64encode(png).decode("ascii")
        parts.append(
            f"<figure><img alt='{name}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{captions[name]}</figcaption></figure>"
        )
    parts.append(_latency_table(report["latency_ms"]))
    sections = ("frames", "runtime", "model", "features", "matches", "node", "localization")
    for section in (name for name in sections if name in report):
        parts.append(_table(section, report[section]))
    if shares:
        parts.append("<h2>agreeing share of each pair of frames</h2>" + _chart(shares))
    return "\n".join(parts) + "\n</html>\n"


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}img{max-width:100%}figure{margin:1rem 0}figcaption{color:#555}"
    "table{border-collapse:collapse}td,th{padding:.15rem 1rem .15rem 0;text-align:left;"
    "vertical-align:top;overflow-wrap:anywhere}th{font-weight:600}"
    ".good{color:#166534;font-weight:600}.bad{color:#b91c1c;font-weight:600}"
)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "not measured" if np.isnan(value) else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_cell(item)}" for key, item in value.items()) or "none"
    return html.escape(str(value))


def _table(title: str, rows: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><th>{html.escape(key.replace('_', ' '))}</th><td>{_cell(value)}</td></tr>"
        for key, value in rows.items()
    )
    return f"<h2>{html.escape(title)}</h2><table>{body}</table>"


def _latency_table(latencies: Mapping[str, Mapping[str, float]]) -> str:
    body = "".join(
        f"<tr><td>{html.escape(stage.replace('_', ' '))}</td>"
        f"<td>{_cell(values['p50'])}</td><td>{_cell(values['p95'])}</td></tr>"
        for stage, values in latencies.items()
    )
    return (
        f"<h2>latency, ms</h2><table><tr><th>stage</th><th>p50</th><th>p95</th></tr>{body}</table>"
    )


def _chart(shares: list[float]) -> str:
    """Return a line of shares 0..1 over the pairs, as SVG."""
    width, height = 900.0, 160.0
    step = width / max(len(shares) - 1, 1)
    points = " ".join(f"{i * step:.1f},{height * (1 - s):.1f}" for i, s in enumerate(shares))
    bound = height * (1 - LEAST_AGREEING_SHARE)
    return (
        f"<svg viewBox='0 -4 {width:g} {height + 8:g}' width='100%' role='img'>"
        f"<line x1='0' x2='{width:g}' y1='{bound:g}' y2='{bound:g}' stroke='#bbb' "
        "stroke-dasharray='6 4'/>"
        f"<polyline fill='none' stroke='#166534' stroke-width='2' points='{points}'/></svg>"
    )
