"""Pictures of an evaluation, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.evaluation.running import Outcome
from gps_denied_inference.evaluation.score import SIGMAS, inside
from gps_denied_inference.pipeline.localization.tiles import TileSource, ground_points

Image = npt.NDArray[np.uint8]

BACKDROP_POINTS = 60_000
_BLUE, _GREEN, _RED, _GREY = "#1d4ed8", "#15803d", "#b91c1c", "#9ca3af"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def error_cdf(outcomes: Sequence[Outcome], wrong_beyond: float) -> bytes:
    """Draw the share of all frames that were found to within an error."""
    figure, axis = _figure(6.5, 4.0)
    errors = np.sort([o.error for o in outcomes if o.error is not None])
    if len(errors):
        share = np.arange(1, len(errors) + 1) / len(outcomes)
        axis.step(errors, share, where="post", color=_BLUE, linewidth=1.8)
        axis.set_xlim(0.0, max(float(np.percentile(errors, 99)) * 1.3, 1e-3))
    axis.set_ylim(0.0, 1.02)
    axis.axvline(wrong_beyond, color=_RED, linewidth=1.0, linestyle="--")
    axis.set_xlabel(f"error / m (wrong beyond {wrong_beyond:g})")
    axis.set_ylabel("share of all frames")
    axis.grid(alpha=0.3)
    return _png(figure)


def consistency(outcomes: Sequence[Outcome]) -> bytes:
    """Draw the share inside so many sigmas beside what a normal error would have."""
    figure, axis = _figure(6.5, 4.0)
    nees = [o.nees for o in outcomes if o.nees is not None]
    sigmas = np.linspace(0.05, 4.0, 80)
    axis.plot(sigmas, [math.erf(s / math.sqrt(2.0)) for s in sigmas], color=_GREY, label="as said")
    if nees:
        axis.plot(sigmas, [inside(nees, s) for s in sigmas], color=_BLUE, label="measured")
        for n in SIGMAS:
            axis.annotate(f"{inside(nees, n):.0%}", (n, inside(nees, n)), (4, -12),
                          textcoords="offset points", fontsize=9)  # fmt: skip
    axis.set_xlabel("sigmas")
    axis.set_ylabel("share of fixes inside")
    axis.set_ylim(0.0, 1.02)
    axis.legend(loc="lower right", frameon=False)
    axis.grid(alpha=0.3)
    return _png(figure)


def stages(figures: dict[str, float]) -> bytes:
    """Draw the mean time of each stage, ms."""
    figure, axis = _figure(6.5, 0.8 + 0.4 * max(len(figures), 1))
    names = list(figures)
    bars = axis.barh(names, [figures[name] for name in names], color=_BLUE, height=0.6)
    axis.bar_label(bars, fmt="%.0f", padding=3)
    axis.set_xlabel("ms a frame")
    axis.margins(x=0.12)
    return _png(figure)


def track(
    source: TileSource,
    outcomes: Sequence[Outcome],
    wrong_beyond: float,
    backdrop: tuple[Image, tuple[float, float, float, float]] | None,
) -> bytes:
    """Draw true and found places on the map.

    Args:
        backdrop: the map's picture, north-up, and its west, east, south and north in map ENU, m;
            None draws the map's own features instead.
    """
    figure, axis = _figure(9.0, 9.0)
    if backdrop is not None:
        axis.imshow(backdrop[0], cmap="gray", extent=backdrop[1], alpha=0.75)
    else:
        points = _features(source)
        axis.plot(points[:, 0], points[:, 1], ".", color=_GREY, markersize=0.8, alpha=0.5)
    truth = [o.record.axis for o in outcomes if o.record.axis is not None]
    axis.plot([p.real for p in truth], [p.imag for p in truth], "-", color=_BLUE, linewidth=1.0,
              alpha=0.8, label="true")  # fmt: skip
    for label, color, wanted in (("found", _GREEN, True), ("wrong", _RED, False)):
        at = [(o.at, o.record.axis) for o in outcomes
              if o.at is not None and _is_right(o, wrong_beyond) == wanted]  # fmt: skip
        axis.plot([p.real for p, _ in at], [p.imag for p, _ in at], "o", color=color,
                  markersize=4.0, markeredgecolor="white", markeredgewidth=0.4,
                  label=f"{label} ({len(at)})")  # fmt: skip
        for p, q in at:
            if q is not None:
                axis.plot([p.real, q.real], [p.imag, q.imag], "-", color=color, linewidth=0.8)
    missed = [o.record.axis for o in outcomes if o.at is None and o.record.axis is not None]
    axis.plot([p.real for p in missed], [p.imag for p in missed], "x", color=_RED, markersize=5.0,
              label=f"no fix ({len(missed)})")  # fmt: skip
    axis.set_aspect("equal")
    axis.set_xlabel("east / m")
    axis.set_ylabel("north / m")
    axis.legend(loc="upper right")
    return _png(figure)


def overlay(
    outcome: Outcome,
    frame: Image,
    backdrop: Image,
    bounds: tuple[float, float, float, float],
) -> bytes:  # fmt: skip
    """Draw a frame and the map's picture under it, as its best place has it, with their pairs.

    Args:
        frame: uint8 (H, W).
        backdrop: the map's picture, north-up.
        bounds: west, east, south and north of it in map ENU, m.
    """
    place = outcome.attempt.fix or outcome.attempt.places[0]
    pixels = outcome.optics.camera.project(place.rays)
    scale_x = backdrop.shape[1] / (bounds[1] - bounds[0])
    scale_y = backdrop.shape[0] / (bounds[3] - bounds[2])
    on_map = np.column_stack([
        (place.ground[:, 0] - bounds[0]) * scale_x, (bounds[3] - place.ground[:, 1]) * scale_y,
    ])  # fmt: skip
    height, width = frame.shape[:2]
    found, _ = cv2.findHomography(on_map, pixels, cv2.LMEDS) if len(pixels) >= 4 else (None, None)
    left = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame.copy()
    right = np.zeros_like(left)
    if found is not None:
        warped = cv2.warpPerspective(backdrop, found, (width, height), flags=cv2.INTER_AREA)
        right = cv2.cvtColor(warped, cv2.COLOR_GRAY2BGR) if warped.ndim == 2 else warped
    for x, y in np.rint(pixels).astype(int):
        for side in (left, right):
            cv2.circle(side, (int(x), int(y)), max(3, width // 250), (80, 220, 80), -1)
    both = np.hstack([left, right])
    factor = min(1.0, 1400.0 / both.shape[1])
    small = cv2.resize(both, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".png", small)[1].tobytes())


def _is_right(outcome: Outcome, wrong_beyond: float) -> bool:
    return outcome.error is not None and outcome.error <= wrong_beyond


def _features(source: TileSource) -> npt.NDArray[np.float64]:
    """Return where the features of the coarsest level lie: a map drawn in dots."""
    level = int(np.argmax(source.info.levels))
    ids, _ = source.centres(level)
    if len(ids) == 0:
        return np.zeros((0, 2))
    ids = ids[:: max(1, len(ids) // 200)]
    tiles = [source.load(int(id)) for id in ids]
    points = np.concatenate([ground_points(t, t.features.keypoints) for t in tiles])
    return points[:: max(1, len(points) // BACKDROP_POINTS)]
