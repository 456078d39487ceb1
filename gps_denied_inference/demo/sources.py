"""Where the demo's frames come from: a simulated flight, a folder, a video, or a rosbag2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.demo.frame import Frame, FrameSource
from gps_denied_inference.errors import ConfigurationError, FrameError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"})
BAG_SUFFIXES = frozenset({".db3", ".mcap"})
LONGEST_SIDE = 1920
"""px; larger frames are made smaller, as a flight camera's driver does before it publishes."""

_FOLDER_PERIOD_NS = 100_000_000
_START_STAMP_NS = 1_700_000_000_000_000_000


def open_source(
    spec: str | None, limit: int | None = None, topic: str | None = None
) -> FrameSource:
    """Return the source behind a path; None or an empty string is the simulated flight.

    Args:
        limit: at most so many frames.
        topic: image topic, for bags with several.

    Raises:
        ConfigurationError: nothing there, or nothing in it that is an image, a video or a bag.
    """
    if not spec:
        from gps_denied_inference.demo.simulation import SimulatedFlight

        return SimulatedFlight() if limit is None else SimulatedFlight(frames=limit)
    path = Path(spec).expanduser()
    if not path.exists():
        raise ConfigurationError(f"source {spec} does not exist")
    if path.is_dir():
        if (path / "metadata.yaml").exists():
            return BagSource(path, limit, topic)
        bags = [entry for entry in sorted(path.iterdir()) if entry.suffix in BAG_SUFFIXES]
        if len(bags) == 1:
            return BagSource(bags[0], limit, topic)
        return FolderSource(path, limit)
    if path.suffix in BAG_SUFFIXES:
        return BagSource(path, limit, topic)
    return VideoSource(path, limit)


def shrink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the image with its longer side at most LONGEST_SIDE."""
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1.0:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class _RealSource:
    """What folders, videos and bags share: no known motion, a limit, stamps that always rise."""

    kind = ""

    def __init__(self, path: Path, limit: int | None) -> None:
        self.name = str(path)
        self.note = ""
        self._path = path
        self._limit = limit

    def motion(self, start: int, end: int) -> None:
        """The true motion is not known: None."""

    def _images(self) -> Iterator[tuple[npt.NDArray[np.uint8], int, str]]:
        """Yield RGB or mono image, stamp in ns, name."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Frame]:
        last_stamp = -1
        for index, (image, stamp, name) in enumerate(self._images()):
            if self._limit is not None and index >= self._limit:
                return
            smaller = shrink(image)
            if smaller is not image:
                height, width = image.shape[:2]
                self.note = (
                    f"frames of {width} x {height} px were made smaller, to "
                    f"{smaller.shape[1]} x {smaller.shape[0]} px"
                )
            # Frames are told apart by their stamps, and some recorders repeat one.
            last_stamp = max(stamp, last_stamp + 1)
            yield Frame(index, last_stamp, smaller, name)


class FolderSource(_RealSource):
    """The images of a folder, in the order of their names, stamped at 10 Hz.

    Raises:
        ConfigurationError: no image in the folder.
        FrameError: while iterating, an image that does not decode.
    """

    kind = "folder"

    def __init__(self, path: Path, limit: int | None = None) -> None:
        super().__init__(path, limit)
        self._files = sorted(
            entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES
        )
        if not self._files:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ConfigurationError(f"folder {path} holds no image ({known}) and no rosbag2")

    def _images(self) -> Iterator[tuple[npt.NDArray[np.uint8], int, str]]:
        for index, file in enumerate(self._files):
            bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if bgr is None:
                raise FrameError(f"image {file} does not decode", "corrupt")
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            yield rgb, _START_STAMP_NS + index * _FOLDER_PERIOD_NS, file.name


class VideoSource(_RealSource):
    """The frames of a video file that OpenCV can read, stamped by its frame rate.

    Raises:
        ConfigurationError: the file is no such video.
    """

    kind = "video"

    def __init__(self, path: Path, limit: int | None = None) -> None:
        super().__init__(path, limit)
        capture = cv2.VideoCapture(str(path))
        readable = capture.isOpened() and capture.read()[0]
        capture.release()
        if not readable:
            raise ConfigurationError(f"source {path} is neither a video nor a rosbag2 to OpenCV")

    def _images(self) -> Iterator[tuple[npt.NDArray[np.uint8], int, str]]:
        capture = cv2.VideoCapture(str(self._path))
        try:
            rate = capture.get(cv2.CAP_PROP_FPS)
            period = round(1e9 / rate) if rate > 0 else _FOLDER_PERIOD_NS
            index = 0
            while True:
                there, bgr = capture.read()
                if not there:
                    return
                rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                yield rgb, _START_STAMP_NS + index * period, f"video frame {index}"
                index += 1
        finally:
            capture.release()


class BagSource(_RealSource):
    """The images of a rosbag2, raw or compressed, with the stamps of their headers.

    Raises:
        ConfigurationError: no bag, or no images in it, or several topics of them.
        FrameError: while iterating, an image that does not decode.
    """

    kind = "bag"

    def __init__(self, path: Path, limit: int | None = None, topic: str | None = None) -> None:
        from gps_denied_inference.bags.reader import Bag

        super().__init__(path, limit)
        self._bag = Bag(path, topic)
        if len(self._bag) == 0:
            raise ConfigurationError(f"bag {path} has no messages on {self._bag.topic}")

    def _images(self) -> Iterator[tuple[npt.NDArray[np.uint8], int, str]]:
        for index, entry in enumerate(self._bag.images()):
            yield entry.decode("rgb"), entry.stamp_ns, f"{self._bag.topic} message {index}"
