"""Makes a set of frames none of which a map shows; then nothing may be found on it.

    python3 -m benchmarks.off_map OUT --own shared/data/fengyuan_dev \\
        --elsewhere shared/data/caliterra shared/data/village_dev --count 300
    gdi evaluate fengyuan.map OUT --height-sigma 0.15 --heading 15
    gdi evaluate fengyuan.map OUT --height-sigma 0.15 --heading 15 --filter

Both must say 0 fixes, the second also ``lost`` for every frame. The set has photographs of other
places, grey with sensor noise of 2 to 20 levels, black, photographs of the map's own place blurred
beyond recognition, and one small texture of it repeated. They come in turns, so that every part of
a flight has some of each kind. ``OUT/frames.csv`` gives each a plausible height and heading.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

SIZE = (960, 720)
HEIGHT = 120.0
SUFFIXES = (".jpg", ".jpeg", ".png")
PLACES_TO_OTHERS = 7
"""Photographs of other places to one frame of each other kind."""


def photographs(folders: Sequence[Path]) -> list[Path]:
    """Return all images in folders, each folder's evenly among the others'."""
    each = [
        sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES and f.stem != "map")
        for folder in folders
    ]
    ranked = [(i / len(files), file) for files in each for i, file in enumerate(files)]
    return [file for _, file in sorted(ranked)]


def grey(path: Path) -> Image:
    """Read an image as it would come from a camera of this set."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise SystemExit(f"{path} is no image")
    return np.asarray(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def spoilt(own: Sequence[Path], random: np.random.Generator) -> Iterator[tuple[str, Image]]:
    """Yield frames that show nothing, kind after kind, for ever."""
    levels, files = itertools.cycle(range(2, 21)), itertools.cycle(own)

    def noise() -> Image:
        shape = SIZE[::-1]
        values = 128.0 + random.normal(0.0, next(levels), shape)
        return np.asarray(np.clip(values, 0, 255), np.uint8)

    def black() -> Image:
        return np.zeros(SIZE[::-1], np.uint8)

    def blurred() -> Image:
        return np.asarray(
            cv2.GaussianBlur(grey(next(files)), (0, 0), random.uniform(15.0, 40.0)), np.uint8
        )

    def repeated() -> Image:
        image, (width, height) = grey(next(files)), SIZE
        side = int(random.integers(48, 160))
        x, y = (int(random.integers(0, length - side)) for length in (width, height))
        piece = image[y : y + side, x : x + side]
        tiled = np.tile(piece, (height // side + 1, width // side + 1))
        return np.ascontiguousarray(tiled[:height, :width])

    kinds: list[Callable[[], Image]] = [noise, black, blurred, repeated]
    for kind in itertools.cycle(kinds):
        yield kind.__name__, kind()


def main() -> int:
    """Write the set."""
    parser = argparse.ArgumentParser(description="Frames that a map does not show.")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--own", type=Path, required=True, help="frames of the map's own place")
    parser.add_argument("--elsewhere", type=Path, nargs="+", required=True, help="other places")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    places, own = photographs(args.elsewhere), photographs([args.own])
    if not places or not own:
        raise SystemExit("no photographs there")
    each, others = itertools.cycle(places), spoilt(own, random)
    (args.out / "images").mkdir(parents=True)
    rows = []
    for index in range(args.count):
        if index % (PLACES_TO_OTHERS + 4) < PLACES_TO_OTHERS:
            kind, image = "elsewhere", grey(next(each))
        else:
            kind, image = next(others)
        name = f"{index:03d}_{kind}.png"
        cv2.imwrite(str(args.out / "images" / name), image)
        rows.append({
            "frame": name, "stamp_s": f"{0.5 * index:.3f}",
            "agl_m": f"{HEIGHT * random.uniform(0.85, 1.15):.1f}",
            "yaw_deg": f"{random.uniform(0.0, 360.0):.1f}",
        })  # fmt: skip
    with (args.out / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    print(f"{args.count} frames of {len(places)} photographs of other places in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
