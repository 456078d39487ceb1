"""The picture of a flight over the map: the way flown and the way found, one frame, the errors."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.map_flight import TWO_SIGMA, MapFlight, Position
from gps_denied_inference.demo.scene import GROUND_SAMPLE
from gps_denied_inference.demo.scene_map import another_day, truth
from gps_denied_inference.demo.simulation import SimulatedFlight

Image = npt.NDArray[np.uint8]

_TRUE, _FIX, _FOLLOWED = "#ffffff", "#ff2d95", "#ffd60a"
_DARK = "#1f2937"
_MARGIN = 3_500.0  # m of the map around the flight
_CLOSE = 420.0  # m to each side of the fix that is looked at closely


def draw(flight: SimulatedFlight, flown: MapFlight) -> bytes:
    """Return the picture as PNG; without any fix the map and the true way alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.0, 9.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 4, height_ratios=[1.15, 1.0, 0.8])
    chart = another_day(flight.scene)
    shown = _pictured(flight, flown)
    _whole(figure.add_subplot(grid[:, :2]), flight, flown, chart, shown)
    _as_image(figure.add_subplot(grid[0, 2]), flight.render(shown), f"frame {shown}, as flown")
    _as_image(
        figure.add_subplot(grid[0, 3]), _under(flight, shown, chart), "the map there, as it lies"
    )
    _close(figure.add_subplot(grid[1, 2:]), flight, flown, chart, shown)
    _errors(figure.add_subplot(grid[2, 2:]), flight, flown)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _pictured(flight: SimulatedFlight, flown: MapFlight) -> int:
    """Return the frame to look at: of those with a fix the one that leans most."""
    found = [position.index for position in flown.fixes] or [0]
    return min(found, key=lambda index: -float(flight.camera_to_enu(index)[2, 2]))


def _whole(
    axis: Any, flight: SimulatedFlight, flown: MapFlight, chart: Image, shown: int
) -> None:  # fmt: skip
    _backdrop(axis, chart)
    way = np.array([truth(flight, index) for index in range(len(flight))])
    axis.plot(way.real, way.imag, "-", color="black", linewidth=4.0, alpha=0.5)
    axis.plot(way.real, way.imag, "-", color=_TRUE, linewidth=2.0, label="true way")
    _line(axis, flown.followed, color=_FOLLOWED, linewidth=1.0,
          label=f"found: {len(flown.followed)} frames, carried by tracks")  # fmt: skip
    at = np.array([position.at for position in flown.fixes], complex)
    axis.plot(at.real, at.imag, "o", color=_FIX, markersize=4.5, markeredgecolor="white",
              markeredgewidth=0.5, label=f"found: {len(at)} fixes on the map")  # fmt: skip
    outline = _outline(flight, shown)
    axis.plot(outline[:, 0], outline[:, 1], "-", color="#22d3ee", linewidth=1.6,
              label=f"ground that frame {shown} shows")  # fmt: skip
    east, north = (0.5 * (line.min() + line.max()) for line in (way.real, way.imag))
    half = 0.5 * max(np.ptp(way.real), np.ptp(way.imag)) + _MARGIN
    axis.set_xlim(east - half, east + half)
    axis.set_ylim(north - half, north + half)
    axis.set_xlabel("east / m")
    axis.set_ylabel("north / m")
    axis.set_title("A flight without GPS over a map of another day's light and colours",
                   loc="left", color=_DARK)  # fmt: skip
    legend = axis.legend(loc="lower left", framealpha=0.85, facecolor="#374151", fontsize=9)
    for text in legend.get_texts():
        text.set_color("white")


def _close(
    axis: Any, flight: SimulatedFlight, flown: MapFlight, chart: Image, shown: int
) -> None:  # fmt: skip
    from matplotlib.patches import Ellipse

    _backdrop(axis, chart)
    way = np.array([truth(flight, index) for index in range(len(flight))])
    axis.plot(way.real, way.imag, "-", color="black", linewidth=4.0, alpha=0.5)
    axis.plot(way.real, way.imag, "-o", color=_TRUE, linewidth=1.6, markersize=4.0)
    _line(axis, flown.followed, color=_FOLLOWED, linewidth=1.2, marker=".", markersize=5.0)
    for position in flown.fixes:
        values, vectors = np.linalg.eigh(position.covariance)
        wide, tall = 2.0 * np.sqrt(np.maximum(values, 0.0) * TWO_SIGMA)
        axis.add_patch(Ellipse(
            (position.at.real, position.at.imag), wide, tall,
            angle=math.degrees(math.atan2(vectors[1, 0], vectors[0, 0])),
            facecolor=_FIX, alpha=0.30, edgecolor="none",
        ))  # fmt: skip
        really = truth(flight, position.index)
        axis.plot([position.at.real, really.real], [position.at.imag, really.imag], "-",
                  color=_FIX, linewidth=1.0)  # fmt: skip
        axis.plot(position.at.real, position.at.imag, "o", color=_FIX, markersize=4.0,
                  markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    middle = truth(flight, shown)
    axis.set_xlim(middle.real - 2.4 * _CLOSE, middle.real + 2.4 * _CLOSE)
    axis.set_ylim(middle.imag - _CLOSE, middle.imag + _CLOSE)
    axis.set_title("close up: fixes with their 2-sigma ellipses, lines to the truth",
                   loc="left", color=_DARK, fontsize=10)  # fmt: skip


def _errors(axis: Any, flight: SimulatedFlight, flown: MapFlight) -> None:
    for positions, color, style, label in (
        (flown.followed, "#b45309", "-", "between fixes"),
        (flown.fixes, _FIX, "o", "fixes"),
    ):
        axis.plot([p.index for p in positions], [p.error(flight) for p in positions], style,
                  color=color, markersize=3.5, linewidth=1.0, label=label)  # fmt: skip
    ordered = sorted(flown.fixes, key=lambda position: position.index)
    wide = [
        math.sqrt(TWO_SIGMA * float(np.linalg.eigvalsh(p.covariance)[-1])) for p in ordered
    ]  # fmt: skip
    axis.fill_between([p.index for p in ordered], 0.0, wide, color=_FIX, alpha=0.15,
                      linewidth=0.0, label="2 sigma, as the node says")  # fmt: skip
    axis.axhline(GROUND_SAMPLE, color="#6b7280", linewidth=1.0, linestyle="--")
    axis.annotate("one pixel of the map", (0, GROUND_SAMPLE), (2, 3), fontsize=8,
                  color="#6b7280", textcoords="offset points")  # fmt: skip
    axis.set_xlim(0, flown.published)
    axis.set_ylim(0.0, 1.25 * axis.get_ylim()[1])  # room for the legend
    axis.set_xlabel("frame")
    axis.set_ylabel("error / m")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper right", frameon=False, fontsize=8, ncols=3)


def _backdrop(axis: Any, chart: Image) -> None:
    rows, columns = chart.shape[:2]
    x, y = 0.5 * columns * GROUND_SAMPLE, 0.5 * rows * GROUND_SAMPLE
    axis.imshow(chart, extent=(-x, x, -y, y), interpolation="bilinear")
    axis.set_aspect("equal")
    axis.ticklabel_format(style="plain")


def _line(axis: Any, positions: Sequence[Position], **style: Any) -> None:
    """Draw positions in the order of their frames, broken where frames have none."""
    ordered = sorted(positions, key=lambda position: position.index)
    points: list[complex] = []
    for before, position in zip([None, *ordered], ordered, strict=False):
        if before is not None and position.index > before.index + 3:
            points.append(complex(math.nan, math.nan))
        points.append(position.at)
    way = np.array(points, complex)
    axis.plot(way.real, way.imag, **{"linestyle": "-", **style})


def _as_image(axis: Any, image: Image, title: str) -> None:
    axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, loc="left", color=_DARK, fontsize=10)


def _under(flight: SimulatedFlight, index: int, chart: Image) -> Image:
    """Return the map as the frame's camera would see it."""
    height, width = flight.render(index).shape[:2]
    seen = cv2.warpPerspective(
        chart, flight.projection(index), (width, height), flags=cv2.INTER_CUBIC
    )
    return np.asarray(seen, np.uint8)


def _outline(flight: SimulatedFlight, index: int) -> npt.NDArray[np.float64]:
    """Return the corners (5, 2) of the ground that a frame shows, m east and north."""
    height, width = flight.render(index).shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height], [0, 0]], np.float64) - 0.5
    back = np.linalg.inv(flight.projection(index))
    scene = cv2.perspectiveTransform(corners[None], back)[0]
    rows, columns = flight.scene.shape[:2]
    return np.column_stack([
        (scene[:, 0] - (columns - 1) / 2.0) * GROUND_SAMPLE,
        ((rows - 1) / 2.0 - scene[:, 1]) * GROUND_SAMPLE,
    ])  # fmt: skip
