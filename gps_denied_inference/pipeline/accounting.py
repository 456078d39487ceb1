"""Where every frame went and how long it took."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gps_denied_inference.pipeline.frame_quality import FrameQuality
from gps_denied_inference.pipeline.stamps import StampSummary, StampWatch

WINDOW = 512
"""Newest samples that percentiles are taken over."""
QUALITIES = 64
"""Newest answered frames whose quality is summed up."""

LOST = "lost_in_transport"
"""Drop reason of frames that were sent to this node and did not reach it."""
SUPERSEDED = "superseded"
"""Drop reason of frames that a newer one replaced before there was time for them."""
INFER_HUNG = "infer_hung"
"""Drop reason of the frame whose forward pass did not come back."""
OUT_OF_MEMORY = "out_of_memory"
INVALID_OUTPUT = "invalid_output"
INFERENCE_ERROR = "inference_error"
"""Drop reasons of frames that the engine failed."""
INTERNAL_ERROR = "internal_error"
"""Drop reason of frames that met a defect."""
SETTLING = 0.5
"""s from a gap in the sender's numbers until it is known whether the middleware lost the frames."""


@dataclass(frozen=True)
class StageLatency:
    """Latency of one stage over the window, in seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class AccountSnapshot:
    """A consistent copy of the counters.

    ``frames_in == frames_out + sum(drops.values()) + frames in work`` holds in every snapshot.
    """

    frames_in: int
    frames_out: int
    drops: Mapping[str, int]
    rate: float
    time_since_frame: float
    latencies: Mapping[str, StageLatency]
    stamps: StampSummary = field(default_factory=StampSummary)
    quality: FrameQuality = field(default_factory=lambda: FrameQuality.median(()))

    @property
    def frames_dropped(self) -> int:
        """Sum over all reasons."""
        return sum(self.drops.values())


class FrameAccounting:
    """Thread-safe counters of frames in, out and dropped, and latencies per stage.

    Args:
        clock: monotonic seconds; tests give their own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._in = 0
        self._out = 0
        self._drops: Counter[str] = Counter()
        self._samples: dict[str, deque[float]] = {}
        self._published: deque[float] = deque(maxlen=WINDOW)
        self._last_in = float("nan")
        self._gaps: deque[tuple[float, int]] = deque()
        self._claims: list[tuple[float, int]] = []
        self._stamps = StampWatch()
        self._not_taken = 0
        self._qualities: deque[FrameQuality] = deque(maxlen=QUALITIES)

    def received(self, stamp_ns: int | None = None) -> None:
        """Count a frame in.

        Args:
            stamp_ns: the frame's; None = it is not looked at.
        """
        with self._lock:
            self._in += 1
            self._last_in = self._clock()
            not_taken, self._not_taken = self._not_taken, 0
            if stamp_ns is not None:
                self._stamps.received(stamp_ns, not_taken)

    def lost(self, count: int, *, numbered: bool = True) -> None:
        """Note frames that the middleware says were sent here and lost on the way.

        A middleware's own count may be wrong by any amount, so it is believed as far as the
        sender's numbers show a gap (see :meth:`skipped`) around that time; a count beyond them, or
        below 1, stands for the gap next to settle. What is lost counts as in, so that the books
        show what the camera sent; it is no sign of life from it.

        Args:
            count: as the middleware gives it.
            numbered: False where the middleware numbers nothing, and its count is all there is.
        """
        with self._lock:
            if numbered:
                self._claims.append((self._clock(), count))
            elif count > 0:
                self._in += count
                self._drops[LOST] += count

    def skipped(self, count: int) -> None:
        """Count frames that the sender numbered, and that were never taken.

        Those of them that were not lost on the way (see :meth:`lost`, which may be told a little
        later) were replaced by a newer one in the middleware's queue of one place.
        """
        with self._lock:
            self._gaps.append((self._clock(), count))
            self._not_taken += count

    def _settle(self, now: float) -> None:
        while self._gaps and now - self._gaps[0][0] >= SETTLING:
            near = sum(size for stamp, size in self._gaps if stamp - self._gaps[0][0] <= SETTLING)
            stamp, count = self._gaps.popleft()
            lost = self._claimed(stamp, count, near)
            self._in += count
            for reason, share in ((LOST, lost), (SUPERSEDED, count - lost)):
                if share:
                    self._drops[reason] += share
        # A claim that came to no gap by now never will.
        oldest = self._gaps[0][0] if self._gaps else now
        self._claims = [claim for claim in self._claims if claim[0] >= oldest - SETTLING]

    def _claimed(self, stamp: float, count: int, near: int) -> int:
        """Take from the claims around ``stamp`` what they say of a gap of ``count`` frames.

        ``near`` is the size of this gap and of those that settle soon after, which one claim may
        speak of together.
        """
        lost, kept = 0, []
        for when, claim in self._claims:
            if lost == count or abs(when - stamp) > SETTLING:
                kept.append((when, claim))
            elif 0 < claim <= near:
                taken = min(claim, count - lost)
                lost += taken
                if claim > taken:
                    kept.append((when, claim - taken))
            else:
                lost = count
        self._claims = kept
        return lost

    def answered(self, latencies: Mapping[str, float], quality: FrameQuality | None = None) -> None:
        """Count a frame out, with the seconds that each of its stages took."""
        with self._lock:
            self._out += 1
            if quality is not None:
                self._qualities.append(quality)
            self._published.append(self._clock())
            for stage, seconds in latencies.items():
                self._samples.setdefault(stage, deque(maxlen=WINDOW)).append(seconds)

    def dropped(self, reason: str) -> None:
        """Count a frame that gets no answer."""
        with self._lock:
            self._drops[reason] += 1

    def snapshot(self) -> AccountSnapshot:
        """Copy the counters and compute the percentiles."""
        return summed_up([self])

    def copy(self) -> _Copy:
        """Copy the counters."""
        with self._lock:
            now = self._clock()
            self._settle(now)
            recent = [stamp for stamp in self._published if now - stamp <= 5.0]
            span = now - recent[0] if recent else 0.0
            return _Copy(
                frames_in=self._in,
                frames_out=self._out,
                drops=Counter(self._drops),
                samples={stage: list(values) for stage, values in self._samples.items()},
                rate=(len(recent) - 1) / span if len(recent) > 1 and span > 0 else float("nan"),
                since=now - self._last_in,
                stamps=self._stamps.summary(),
                qualities=tuple(self._qualities),
            )


@dataclass(frozen=True)
class _Copy:
    """What one camera's books hold at a moment."""

    frames_in: int
    frames_out: int
    drops: Counter[str]
    samples: Mapping[str, list[float]]
    rate: float
    since: float
    stamps: StampSummary
    qualities: tuple[FrameQuality, ...]


def summed_up(accounts: Sequence[FrameAccounting]) -> AccountSnapshot:
    """Return the books of one camera, or of several together.

    Of several, counts and rates are sums, the newest frame is that of any, percentiles are over the
    samples of all, and stamps and quality, which say nothing together, are left out.
    """
    copies = [account.copy() for account in accounts]
    samples: dict[str, list[float]] = {}
    drops: Counter[str] = Counter()
    for one in copies:
        drops.update(one.drops)
        for stage, values in one.samples.items():
            samples.setdefault(stage, []).extend(values)
    rates = [one.rate for one in copies if not math.isnan(one.rate)]
    alone = copies[0] if len(copies) == 1 else None
    return AccountSnapshot(
        frames_in=sum(one.frames_in for one in copies),
        frames_out=sum(one.frames_out for one in copies),
        drops=dict(drops),
        rate=math.fsum(rates) if rates else float("nan"),
        time_since_frame=min(
            (one.since for one in copies if not math.isnan(one.since)), default=float("nan")
        ),
        latencies={
            stage: StageLatency(*(float(p) for p in np.percentile(values, (50, 95, 99))))
            for stage, values in samples.items()
        },
        stamps=alone.stamps if alone else StampSummary(),
        quality=FrameQuality.median(alone.qualities if alone else ()),
    )
