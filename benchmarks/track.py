"""Tracking contest: what one more frame of a flight costs, beside the authors' network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from benchmarks.contest import Timing, Turn, as_report, machine, race
from benchmarks.published import Image, Reference
from gps_denied_inference.runtimes.contract import BuildConfig, Progress
from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

INTERVALS = (1, 2, 3)
"""Values of the setting ``detection_interval`` that take part."""

PERIOD_NS = 40_000_000
"""Between two frames' stamps: 25 Hz."""

AUTHORS = "authors_extract_and_match"


class _Flight:
    """A session that flies the same frames over and over; each time is a new flight."""

    def __init__(self, session: InferenceSession, images: Sequence[Image]) -> None:
        self._session, self._images = session, images
        self._stamp_ns = 0
        # Counts of this flight.
        self.frames = self.followed = self.points = self.continued = 0

    def __call__(self, i: int) -> None:
        """Track frame i."""
        if i == 0:
            self._session.restart_tracks()
            self.frames = self.followed = self.points = self.continued = 0
        self._stamp_ns += PERIOD_NS
        image = self._images[i]
        flat = image[:, :, 0] if image.shape[2] == 1 else image
        update = self._session.process(flat, self._stamp_ns, None).track
        assert update is not None
        self.frames += 1
        self.followed += not update.detected
        self.points += update.features.count
        self.continued += update.continued


def bench_track(
    images: Sequence[Image],
    config: BuildConfig,
    runtime: str,
    rounds: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure task ``track`` (mutual nearest neighbours, homography, flow) frame by frame.

    Our turn is all of a frame's work but ROS: extract, match, verify, keep the ids, follow, and
    match to the key frame. The authors' is extracting and matching to the frame before by their
    nearest neighbours; they have no tracks.

    Args:
        images: successive frames, uint8 (H, W, C), all as ``config`` says.
        config: the engines'.
        runtime: name in the runtime registry.
        rounds: passes over all frames.
        progress: called with the share done.

    Raises:
        RuntimeUnavailableError: the authors' code is not installed.
        GpsDeniedInferenceError: as the session raises.
    """
    reference = Reference(config)
    before = reference.extract(images[-1])

    def authors(i: int) -> None:
        nonlocal before
        current = reference.extract(images[i])
        reference.nearest(before, current)
        before = current

    with tempfile.TemporaryDirectory() as cache, ExitStack() as stack:
        flights: dict[str, _Flight] = {}
        for interval in INTERVALS:
            session = InferenceSession(_settings(config, runtime, cache, interval))
            stack.callback(session.close)
            session.open()
            flights[f"detection_interval_{interval}"] = _Flight(session, images)
        turns: dict[str, Turn] = {**flights, AUTHORS: authors}
        timings = race(turns, len(images), rounds, progress=progress)
        return {
            "images": len(images),
            "rounds": rounds,
            "config": asdict(config),
            "runtime": asdict(session.readback),
            "machine": machine(),
            "latency_ms": as_report(timings),
            # Frames differ in cost where only some are detected: the mean says what is kept up.
            "rate_hz": {name: _rate(timing) for name, timing in timings.items()},
            "times_faster_than_authors": {
                name: {"mean": timings[AUTHORS].mean / timings[name].mean} for name in flights
            },
            "frames": {
                name: {
                    "share_followed": flight.followed / flight.frames,
                    "points": flight.points / flight.frames,
                    "points_that_go_on": flight.continued / flight.frames,
                }
                for name, flight in flights.items()
            },
        }


def _settings(config: BuildConfig, runtime: str, cache: str, interval: int) -> Settings:
    return Settings.from_mapping(
        {
            "task": "track",
            "runtime": runtime,
            "device": config.device,
            "precision": config.precision,
            "image_width": config.width,
            "image_height": config.height,
            "color": "mono" if config.channels == 1 else "rgb",
            "max_keypoints": config.max_keypoints,
            "detection_threshold": config.detection_threshold,
            "detection_interval": interval,
            "threads": config.threads,
            "engine_cache_directory": cache,
        }
    )


def _rate(timing: Timing) -> float:
    return 1e3 / timing.mean
