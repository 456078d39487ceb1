"""What ``gdi doctor --report FILE`` measures: every runtime that works here, at several sizes.

The file holds no host name, user name or path. Each run is one runtime on one device in one
precision at one size, with what it answered (:func:`check`), how long it took, and how far its
features are from those of a reference in fp32 on the CPU (:func:`agreement`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import GpsDeniedInferenceError, ModelNotFoundError
from gps_denied_inference.runtimes.specs import BuildConfig
from gps_denied_inference.versions import installed_version

if TYPE_CHECKING:
    from gps_denied_inference.pipeline.features import Features

FORMAT = 1
"""Grows where a field changes its meaning or goes."""

SIZES = ((320, 256, 500), (640, 480, 1000), (1280, 720, 2000))
"""(width, height, K)."""

MODEL = "xfeat"
REFERENCES = ("pytorch", "onnxruntime")
"""Whose fp32 features on the CPU the others are compared with: the first that runs."""

PASSES = 30
TIME_LIMIT = 15.0
"""s of timed passes for one run; at least three are made."""

NEAR = 1.0
"""px within which two keypoints are the same."""

BOUNDS = {"fp32": (0.98, 0.999), "fp16": (0.90, 0.99)}
"""Least share of keypoints found again, and least median cosine of their descriptors."""

Image = npt.NDArray[np.uint8]
Say = Callable[[str], None]


def measure(rows: Sequence[dict[str, Any]], say: Say = lambda line: None) -> list[dict[str, Any]]:
    """Run every runtime that works, in each of its precisions and sizes.

    Args:
        rows: of :func:`gps_denied_inference.cli.doctor.examine`.
        say: takes one line before each run.

    Returns:
        One entry a run; what failed has its ``error``, what lacks its weights is ``skipped``;
        neither has figures.
    """
    from gps_denied_inference.runtimes.table import find

    wanted = [
        (table_row.label(precision), row["device"], precision)
        for row in rows
        if row["works"]
        for table_row in (find(row["runtime"])[0],)
        if not table_row.switch
        for precision in table_row.precisions[row["device"]]
    ]
    # The references first.
    wanted.sort(key=lambda one: (one[1] != "cpu" or one[2] != "fp32", _rank(one[0])))
    runs = []
    for width, height, keypoints in SIZES:
        reference: tuple[str, Features] | None = None
        for runtime, device, precision in wanted:
            say(f"{runtime} on {device}, {precision}, {width}x{height}, K = {keypoints}")
            config = BuildConfig(
                height=height, width=width, max_keypoints=keypoints, device=device,
                precision=precision,
            )  # fmt: skip
            entry, features = _run(runtime, config)
            if features is not None and reference is not None:
                entry["agreement"] = {
                    "with": reference[0], **agreement(reference[1], features, precision),
                }  # fmt: skip
            elif features is not None and device == "cpu" and precision == "fp32":
                reference = (runtime, features)
            runs.append(entry)
    return runs


def report(examined: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is written to the file, as plain data."""
    kept = {name: value for name, value in examined.items() if name not in ("cache", "models")}
    return {
        "format": FORMAT,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "package": installed_version("gps_denied_inference"),
        "model": MODEL,
        **kept,
        "runs": runs,
    }


def render(runs: Sequence[dict[str, Any]]) -> str:
    """Return the runs as lines for people."""
    lines = []
    for run in runs:
        head = (
            f"  {run['runtime']} ({run['device']}, {run['precision']}) {run['width']}x"
            f"{run['height']}, K = {run['max_keypoints']}: "
        )
        if run["error"] or run["skipped"]:
            lines.append(f"{head}{run['error'] or 'skipped: ' + run['skipped']}")
            continue
        text = f"p50 {run['p50_ms']:.2f} ms, p95 {run['p95_ms']:.2f} ms"
        failed = [name for name, passed in run["checks"].items() if not passed]
        if failed:
            text += f", WRONG: {', '.join(failed)}"
        if found := run.get("agreement"):
            text += (
                f", {'agrees' if found['agrees'] else 'DISAGREES'} with {found['with']}"
                f" ({found['keypoints_found_again']:.1%} of the keypoints,"
                f" cosine {found['median_cosine']:.4f})"
            )
        lines.append(head + text)
    return "\n".join(lines)


def passed(run: dict[str, Any]) -> bool:
    """Whether a run loaded, answered by the contract and agreed with the reference, or was
    skipped."""
    if run["skipped"]:
        return True
    agrees = run.get("agreement", {}).get("agrees", True)
    return not run["error"] and all(run["checks"].values()) and agrees


def agreement(reference: Features, features: Features, precision: str) -> dict[str, Any]:
    """Compare features of one image: keypoints found again within ``NEAR``, and descriptors."""
    least_share, least_cosine = BOUNDS[precision]
    share, cosine = 0.0, 0.0
    if reference.count and features.count:
        offsets = reference.keypoints[:, None] - features.keypoints[None]
        squared = (offsets**2).sum(axis=2)
        nearest = squared.argmin(axis=1)
        same = squared[np.arange(reference.count), nearest] <= NEAR**2
        share = float(same.mean())
        if same.any():
            pairs = reference.descriptors[same] * features.descriptors[nearest[same]]
            cosine = float(np.median(pairs.sum(axis=1)))
    return {
        "keypoints": features.count,
        "keypoints_found_again": share,
        "median_cosine": cosine,
        "agrees": share >= least_share and cosine >= least_cosine,
    }


def check(extract: Callable[[Image], Features], image: Image) -> tuple[dict[str, bool], Features]:
    """Hold a runtime to part of the conformance suite of the tests.

    Returns:
        What was looked for and whether it was so, and the features of ``image``.
    """
    features = extract(image)
    blank = extract(np.zeros_like(image))
    again = extract(image)
    height, width = image.shape[:2]
    inside = (features.keypoints >= -0.5) & (features.keypoints <= (width - 0.5, height - 0.5))
    norms = np.linalg.norm(features.descriptors, axis=1)
    return {
        "finds_features": features.count > 0,
        "keypoints_in_the_image": bool(inside.all()),
        "descriptors_of_unit_norm": bool(np.allclose(norms, 1.0, atol=1e-2)),
        "same_answer_again": bool(
            again.count == features.count
            and np.allclose(again.keypoints, features.keypoints, atol=1e-3)
        ),
        "blank_image_is_finite": bool(
            np.isfinite(blank.keypoints).all() and np.isfinite(blank.descriptors).all()
        ),
    }, features


def _rank(runtime: str) -> int:
    return next(
        (rank for rank, name in enumerate(REFERENCES) if runtime.startswith(name)), len(REFERENCES)
    )


def picture(width: int, height: int) -> Image:
    """Return the demo's piece of ground as a mono image, (height, width, 1) uint8."""
    import cv2

    from gps_denied_inference.images.files import read_image

    ground = read_image(Path(__file__).parents[1] / "demo" / "data" / "landsat7_crop.png")
    scale = max(width / ground.shape[1], height / ground.shape[0])
    size = (max(width, round(ground.shape[1] * scale)), max(height, round(ground.shape[0] * scale)))
    resized = cv2.resize(ground, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized[:height, :width], np.uint8)


def _run(runtime_name: str, config: BuildConfig) -> tuple[dict[str, Any], Features | None]:
    from gps_denied_inference.engines.cache import EngineCache
    from gps_denied_inference.models import zoo
    from gps_denied_inference.pipeline.extractor import Extractor
    from gps_denied_inference.runtimes.table import create_runtime, find

    entry: dict[str, Any] = {
        "runtime": runtime_name, "device": config.device, "precision": config.precision,
        "width": config.width, "height": config.height, "max_keypoints": config.max_keypoints,
        "error": "", "skipped": "",
    }  # fmt: skip
    try:
        model = zoo.resolve(MODEL, need_weights=find(runtime_name)[0].needs_weights)
    except ModelNotFoundError:
        entry["skipped"] = f"the weights of '{MODEL}' are not here: 'gdi models fetch {MODEL}'"
        return entry, None
    image = picture(config.width, config.height)
    try:
        with tempfile.TemporaryDirectory(prefix="gdi-report-") as folder:
            runtime = create_runtime(runtime_name, cache=EngineCache(Path(folder)))
            begin = time.perf_counter()
            prepared = runtime.compile_engine(model, config)
            entry["prepare_s"] = time.perf_counter() - begin
            handle = runtime.deserialize_engine(prepared)
            try:
                extractor = Extractor(runtime, handle)
                checks, features = check(extractor.extract, image)
                times = _times(lambda: extractor.extract(image))
            finally:
                runtime.release_engine(handle)
    except GpsDeniedInferenceError as error:
        entry["error"] = str(error)
        return entry, None
    entry |= {
        "provider": handle.readback.provider,
        "ran_on": handle.readback.device,
        "ran_in": handle.readback.precision,
        "version": handle.readback.version,
        "load_s": handle.load_time,
        "passes": len(times),
        "p50_ms": float(np.percentile(times, 50)),
        "p95_ms": float(np.percentile(times, 95)),
        "checks": checks,
    }
    return entry, features


def _times(work: Callable[[], object]) -> list[float]:
    """Return what each pass took, ms."""
    times: list[float] = []
    end = time.perf_counter() + TIME_LIMIT
    while len(times) < PASSES and (len(times) < 3 or time.perf_counter() < end):
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return times
