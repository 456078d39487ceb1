"""The report of an evaluation as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;"
    "color:#222;background:#fff}img{max-width:100%}figure{margin:1rem 0}figcaption{color:#555}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem .9rem "
    ".15rem 0;text-align:left;vertical-align:top}th{font-weight:600}.bad{color:#b91c1c}"
    "details{margin:1rem 0}.row{display:flex;flex-wrap:wrap;gap:1rem}.row figure{flex:1 1 28rem}"
)


def render(
    title: str,
    about: Mapping[str, Any],
    figures: Mapping[str, Any],
    charts: Mapping[str, bytes],
    examples: Sequence[tuple[str, bytes]],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Return the page.

    Args:
        title: of the page.
        about: what was evaluated, on what.
        figures: of :func:`score.summarise`.
        charts: PNG by caption.
        examples: captions and PNG of the best and worst frames.
        rows: of :func:`score.row_of`, one a frame.
    """
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        _table(about), "<h2>Figures</h2>", _table(figures), "<div class='row'>",
        *(_figure(caption, png) for caption, png in charts.items()), "</div>",
    ]  # fmt: skip
    if examples:
        parts.append("<h2>Best and worst: the frame, and the map under it</h2>")
        parts += [_figure(caption, png) for caption, png in examples]
    parts.append(f"<h2>Frames</h2><details><summary>{len(rows)} frames</summary>")
    parts += [_rows(rows), "</details></html>"]
    return "\n".join(parts) + "\n"


def _figure(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    text = html.escape(caption)
    return (
        f"<figure><img alt='{text}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )


def words(value: object) -> str:
    """Return a value as reports write it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return "not known" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {words(item)}" for key, item in value.items()) or "none"
    return str(value)


def _cell(value: object) -> str:
    return html.escape(words(value))


def _table(rows: Mapping[str, Any]) -> str:
    body = "".join(
        f"<tr><th>{html.escape(str(key).replace('_', ' '))}</th><td>{_cell(value)}</td></tr>"
        for key, value in rows.items()
    )
    return f"<table>{body}</table>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(key.replace('_', ' '))}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
