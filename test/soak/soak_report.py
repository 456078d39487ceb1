"""What a soak comes to: figures, bounds, and a picture."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from soak_books import Answer, Period, Sent

RECOVERY_LIMIT = 5.0
"""s from the end of a fault until the node is active and answers again."""
SLOPE_LIMIT = 0.2
"""MiB a minute of resident memory, after warm-up."""
PAUSE = 1.0
"""s without an answer that mean that the node is not active; CRITICAL lets 2 frames a second by."""
LOOKED_AT = 12.0
"""s after a fault in which pauses are put down to it."""
WARM_UP = 120.0
"""s of a process's life whose memory is not judged."""
SATURATED = 600.0
"""s of a process's life after which every kind of fault has come once: what memory gains from then
on is told besides, and not judged."""
LEAST_STEADY = 600.0
"""s after warm-up below which a slope is noise: it is printed, and not judged."""
STEADY_AFTER = 3.0
"""s active before memory is looked at: while engines are loaded, it goes up and down."""
MORE_THREADS, MORE_FILES = 1.0, 3.0
"""That a process may hold more at the end of its life than after its warm-up."""
FACTS = (("RSS / MiB", 3), ("threads", 4), ("open files", 5), ("GPU / MiB", 6))

Row = tuple[float, str, int, float, int, int, "float | None"]


@dataclass(frozen=True)
class Struck:
    """A fault that was put in.

    Attributes:
        name: the fault.
        begin: monotonic s.
        due: monotonic s from which the node has to be active again.
        recovered: s from ``due``; infinite = it was not within the time that was waited.
    """

    name: str
    begin: float
    due: float
    recovered: float


def slope(rows: Sequence[Row], column: int, warm_up: float = WARM_UP) -> tuple[float, float, float]:
    """Return what a column gains a minute, its standard error, and the s that it is made of.

    One slope over all lives of a process; each life has a level of its own, and its first
    ``warm_up`` s are left out.
    """
    lives: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        lives.setdefault(row[2], []).append((row[0], float(row[column] or 0.0)))
    top = bottom = seconds = rest = 0.0
    count = 0
    kept = []
    for life in lives.values():
        points = np.array(life)
        points = points[points[:, 0] >= points[0, 0] + warm_up]
        if len(points) < 10:
            continue
        centred = points - points.mean(axis=0)
        top += float(centred[:, 0] @ centred[:, 1])
        bottom += float(centred[:, 0] @ centred[:, 0])
        seconds += float(np.ptp(points[:, 0]))
        count += len(points)
        kept.append(centred)
    if not kept:
        return math.nan, math.nan, 0.0
    gain = top / bottom
    rest = sum(float(((c[:, 1] - gain * c[:, 0]) ** 2).sum()) for c in kept)
    error = math.sqrt(rest / max(1, count - 1 - len(kept)) / bottom)
    return 60.0 * gain, 60.0 * error, seconds


def growth(rows: Sequence[Row], column: int) -> float:
    """Return by how much a column's median rose at most from after warm-up to the end of a life."""
    lives: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        lives.setdefault(row[2], []).append((row[0], float(row[column] or 0.0)))
    worst = 0.0
    for life in lives.values():
        points = np.array(life)
        points = points[points[:, 0] >= min(points[0, 0] + WARM_UP, points[-1, 0] - 60.0)]
        part = max(1, min(60, len(points) // 3))
        rise = np.median(points[-part:, 1]) - np.median(points[:part, 1])
        worst = max(worst, float(rise))
    return worst


def steady(rows: Sequence[Row], periods: Sequence[Period]) -> list[Row]:
    """Return the rows taken while the node was active, and had been for a while."""
    return [
        row for row in rows
        if any(p.begin + STEADY_AFTER <= row[0] <= p.end for p in periods)
    ]  # fmt: skip


@dataclass
class Report:
    """Everything that a soak noted, and what it comes to."""

    begin: float
    end: float
    struck: Sequence[Struck]
    sent: Sequence[Sent]
    answers: Sequence[Answer]
    periods: Sequence[Period]
    rows: Sequence[Row]
    fixes: Sequence[float]
    positions: Sequence[float]
    exits: Sequence[int]
    notes: Sequence[str]

    def figures(self) -> dict[str, Any]:
        """Return the figures by name."""
        minutes = (self.end - self.begin) / 60.0
        reasons: Counter[str] = Counter()
        for period in self.periods:
            reasons.update(period.reasons)
        active = sum(max(0.0, p.end - max(p.begin, self.begin)) for p in self.periods)
        worst = max(self.struck, key=lambda s: s.recovered, default=None)
        by_name: dict[str, list[float]] = {}
        for fault in self.struck:
            by_name.setdefault(fault.name, []).append(fault.recovered)
        answered = sum(p.answered for p in self.periods)
        dropped = sum(p.dropped for p in self.periods)
        memory: dict[str, Any] = {}
        for name in sorted({row[1] for row in self.rows}):
            rows = [row for row in self.rows if row[1] == name]
            judged = steady(rows, self.periods) if name == "node" else rows
            gain, error, seconds = slope(judged, 3)
            later, later_error, later_seconds = slope(judged, 3, SATURATED)
            memory[name] = {
                "lives": len({row[2] for row in rows}),
                "rss_mib_per_min": gain, "standard_error": error, "steady_s": seconds,
                "rss_mib_per_min_later": later, "standard_error_later": later_error,
                "later_s": later_seconds,
                "rss_max_mib": max(row[3] for row in rows),
                "threads_max": max(row[4] for row in rows),
                "threads_growth": growth(judged, 4) if judged else math.nan,
                "files_max": max(row[5] for row in rows),
                "files_growth": growth(judged, 5) if judged else math.nan,
                "gpu_max_mib": max((row[6] for row in rows if row[6] is not None), default=None),
            }  # fmt: skip
        return {
            "minutes": minutes,
            "faults": len(self.struck),
            "recovery_worst_s": worst.recovered if worst else math.nan,
            "recovery_worst_of": worst.name if worst else "",
            "recovery_p50_s": float(np.median([s.recovered for s in self.struck] or [math.nan])),
            "recovery_by_fault": {
                name: {"times": len(all_), "worst_s": max(all_)}
                for name, all_ in sorted(by_name.items())
            },
            "recovery_over_limit": sum(s.recovered > RECOVERY_LIMIT for s in self.struck),
            "frames_sent": len(self.sent),
            "frames_answered": answered,
            "frames_dropped": dropped,
            "drop_reasons": dict(reasons.most_common()),
            "frames_while_not_active": len(self.sent) - answered - dropped,
            "seconds_not_active": self.end - self.begin - active,
            "frames_in_gaps": sum(p.gaps for p in self.periods),
            "frames_unexplained": sum(p.unexplained for p in self.periods),
            "unexplained_in": [
                {
                    "from_min": (p.begin - self.begin) / 60.0,
                    "to_min": (p.end - self.begin) / 60.0,
                    "gaps": p.gaps,
                    "dropped": p.dropped,
                    "unexplained": p.unexplained,
                    "at_min": (p.unexplained_at - self.begin) / 60.0,
                    "after": self._struck_before(p.unexplained_at),
                }
                for p in self.periods
                if p.unexplained
            ],
            "overcounted_in": [
                {
                    "from_min": (p.begin - self.begin) / 60.0,
                    "to_min": (p.end - self.begin) / 60.0,
                    "overcounted": p.overcounted,
                    "at_min": (p.overcounted_at - self.begin) / 60.0,
                    "after": self._struck_before(p.overcounted_at),
                    "drop_reasons": dict(p.overcounted_reasons),
                }
                for p in self.periods
                if p.overcounted
            ],
            "frames_overcounted": sum(p.overcounted for p in self.periods),
            "answers_not_heard_here": sum(p.unheard for p in self.periods),
            "periods_of_activity": len(self.periods),
            "fixes": len(self.fixes),
            "positions_to_autopilot": len(self.positions),
            "unasked_exits": Counter(str(code) for code in self.exits),
            "processes": memory,
            "notes": list(self.notes),
        }

    def _struck_before(self, time: float) -> str:
        """Return the last fault that began before a moment, and how many s before."""
        struck = [s for s in self.struck if s.begin <= time]
        return f"{struck[-1].name} {time - struck[-1].begin:.1f} s before" if struck else ""

    @staticmethod
    def broken(figures: Mapping[str, Any]) -> list[str]:
        """Return the bounds that do not hold, one line each."""
        lines = []
        if figures["recovery_over_limit"]:
            lines.append(
                f"{figures['recovery_over_limit']} of {figures['faults']} faults: not active again "
                f"within {RECOVERY_LIMIT:g} s; worst {figures['recovery_worst_s']:.2f} s after "
                f"{figures['recovery_worst_of']}"
            )
        for name in ("frames_unexplained", "frames_overcounted"):
            if figures[name]:
                lines.append(f"{name.replace('_', ' ')}: {figures[name]}")
        strange = {c: n for c, n in figures["unasked_exits"].items() if c not in ("-9", "75")}
        if strange:
            lines.append(f"the node ended by itself, exit codes {strange}")
        for name, held in figures["processes"].items():
            if name not in ("node", "link"):
                continue
            if held["steady_s"] >= LEAST_STEADY and not held["rss_mib_per_min"] < SLOPE_LIMIT:
                lines.append(f"{name}: resident memory gains {held['rss_mib_per_min']:.3f} MiB/min")
            if held["threads_growth"] > MORE_THREADS:
                lines.append(f"{name}: {held['threads_growth']:g} threads more")
            if held["files_growth"] > MORE_FILES:
                lines.append(f"{name}: {held['files_growth']:g} open files more")
        return lines

    def text(self, figures: Mapping[str, Any]) -> str:
        """Return the figures as they are printed."""
        f = figures
        lines = [
            f"{f['minutes']:.1f} min, {f['faults']} faults of {len(f['recovery_by_fault'])} kinds; "
            f"active again: median {f['recovery_p50_s']:.2f} s, worst "
            f"{f['recovery_worst_s']:.2f} s ({f['recovery_worst_of']}), limit {RECOVERY_LIMIT:g} s",
            *(
                f"    {name:24s} {held['times']:3d} times, worst {held['worst_s']:.2f} s"
                for name, held in f["recovery_by_fault"].items()
            ),
            f"frames: {f['frames_sent']} sent, {f['frames_answered']} answered, "
            f"{f['frames_dropped']} dropped and counted, {f['frames_while_not_active']} while not "
            f"active ({f['seconds_not_active']:.0f} s in all)",
            "    dropped: " + ", ".join(f"{k} {v}" for k, v in f["drop_reasons"].items()),
            f"    {f['frames_in_gaps']} in gaps between answers: {f['frames_unexplained']} "
            f"unexplained by ~/status, {f['frames_overcounted']} counted that were never sent "
            f"({f['periods_of_activity']} periods of activity)",
            f"localization: {f['fixes']} fixes, {f['positions_to_autopilot']} positions reached "
            "the autopilot",
        ]
        for name, held in f["processes"].items():
            gpu = held["gpu_max_mib"]
            lines.append(
                f"{name}: {held['lives']} lives, RSS at most {held['rss_max_mib']:.0f} MiB, "
                f"{held['rss_mib_per_min']:+.3f} +- {held['standard_error']:.3f} MiB/min over "
                f"{held['steady_s'] / 60:.1f} min after warm-up, "
                f"{held['rss_mib_per_min_later']:+.3f} +- {held['standard_error_later']:.3f} from "
                f"the {SATURATED / 60:.0f}th minute of a life on "
                f"({held['later_s'] / 60:.1f} min); threads at most "
                f"{held['threads_max']} ({held['threads_growth']:+g}), open files at most "
                f"{held['files_max']} ({held['files_growth']:+g})"
                + (f"; GPU at most {gpu:.0f} MiB" if gpu is not None else "")
            )
        return "\n".join([*lines, *f["notes"]])

    def picture(self, file: Path) -> None:
        """Draw rate, recovery and what the processes hold over time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        facts = [f for f in FACTS if any(row[f[1]] is not None for row in self.rows)]
        figure = Figure(figsize=(11, 2.1 * (len(facts) + 2)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(facts) + 2, 1, sharex=True)

        def minutes(time: float) -> float:
            return (time - self.begin) / 60.0

        span = 5.0
        edges = np.arange(self.begin, self.end, span)
        for name, times in (
            ("sent", [s.time for s in self.sent]),
            ("answered", [a.time for a in self.answers]),
        ):
            counts = np.histogram(times, np.append(edges, edges[-1] + span))[0]
            axes[0].plot(minutes(edges[:-1]), counts[:-1] / span, label=name, linewidth=1.0)
        axes[0].set_ylabel("frames / Hz")
        axes[0].set_ylim(bottom=0.0)
        axes[1].vlines(
            [minutes(s.due) for s in self.struck], 0.0,
            [min(s.recovered, 2 * RECOVERY_LIMIT) for s in self.struck],
        )  # fmt: skip
        axes[1].axhline(RECOVERY_LIMIT, color="#b91c1c", linestyle="--", linewidth=1.0)
        axes[1].set_ylabel("active again\nafter / s")
        for axis, (label, column) in zip(axes[2:], facts, strict=True):
            for name, colour in (("node", "#1d4ed8"), ("link", "#15803d"), ("camera", "#9ca3af")):
                lives: dict[int, list[tuple[float, float]]] = {}
                for row in self.rows:
                    if row[1] == name and row[column] is not None:
                        lives.setdefault(row[2], []).append((minutes(row[0]), float(row[column])))  # type: ignore[arg-type]
                for index, life in enumerate(lives.values()):
                    axis.plot(
                        *np.array(life).T, color=colour, linewidth=1.0,
                        label="_" * bool(index) + name,
                    )  # fmt: skip
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0.0)
        axes[-1].set_xlabel("minutes")
        for axis in axes:
            axis.grid(alpha=0.3)
            axis.spines[["top", "right"]].set_visible(False)
        for axis in (axes[0], axes[2]):
            axis.legend(loc="lower right", ncols=3, fontsize=8, frameon=False)
        figure.savefig(file, dpi=110)


def recovered_after(due: float, answers: Sequence[float]) -> float:
    """Return the s from ``due`` until answers flow again; infinite where they do not.

    They flow once no pause longer than :data:`PAUSE` follows within :data:`LOOKED_AT`.

    Args:
        due: monotonic s.
        answers: monotonic s of all answers, rising.
    """
    after = answers[bisect.bisect(answers, due) : bisect.bisect(answers, due + LOOKED_AT)]
    if not after:
        return math.inf
    found = after[0]
    for last, answer in itertools.pairwise(after):
        if answer - last > PAUSE:
            found = answer
    if due + LOOKED_AT - after[-1] > PAUSE:
        return math.inf
    return found - due
