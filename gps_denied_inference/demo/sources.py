"""Where the demo's frames come from: a simulated flight, a folder, a video, or a rosbag2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.bags.layout import is_bag
from gps_denied_inference.demo.frame import Frame, FrameSource, SourceKind
from gps_denied_inference.errors import ConfigurationError, FrameError, StorageError
from gps_denied_inference.images.choices import DepthScaling
from gps_denied_inference.images.files import IMAGE_SUFFIXES, read_image
from gps_denied_inference.images.limits import MAX_PIXELS, check_pixel_count
from gps_denied_inference.storage.files import user_path

LONGEST_SIDE = 1920
"""px; larger frames are made smaller, as a flight camera's driver does before it publishes."""

_MOST_BAD_FRAMES = 100
"""Of a video in a row: behind more there is no more to come."""

_FOLDER_PERIOD_NS = 100_000_000
_START_STAMP_NS = 1_700_000_000_000_000_000


def open_source(
    spec: str | None,
    limit: int | None = None,
    topic: str | None = None,
    depth_scaling: DepthScaling = "percentile",
    max_pixels: int = MAX_PIXELS,
) -> FrameSource:
    """Return the source behind a path; None or an empty string is the simulated flight.

    Args:
        limit: at most so many frames.
        topic: image topic, for bags with several.
        depth_scaling: how 16 bits become 8, one of ``DEPTH_SCALINGS``.
        max_pixels: px, most that an image may have.

    Raises:
        ConfigurationError: nothing there, or nothing in it that is an image, a video or a bag.
    """
    if not spec:
        from gps_denied_inference.demo.simulation import SimulatedFlight

        return SimulatedFlight(120 if limit is None else limit, relief=True)
    try:
        path = user_path(spec)
    except StorageError as error:
        raise ConfigurationError(f"source {spec}: {error}") from error
    if not path.exists():
        raise ConfigurationError(f"source {spec} does not exist")
    if not path.is_dir() and not path.is_file():
        raise ConfigurationError(f"source {spec} is neither a folder nor a regular file")
    if is_bag(path):
        return BagSource(path, limit, topic, depth_scaling, max_pixels)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path, limit, depth_scaling, max_pixels)
    return VideoSource(path, limit, max_pixels)


def shrink(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the image with its longer side at most LONGEST_SIDE."""
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1.0:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


Image = npt.NDArray[np.uint8]
Decode = Callable[[], Image]
"""Returns one image, RGB or mono; raises FrameError."""


class _RealSource:
    """What folders, videos and bags share: no known motion, a limit, stamps that always rise.

    An image that does not decode is left out and named in ``refused``; the others keep their
    places, so that its neighbours are not taken for successive frames.
    """

    kind: SourceKind

    def __init__(self, path: Path, limit: int | None) -> None:
        self.name = str(path)
        self.note = ""
        self.notes: list[str] = []
        self.refused: dict[str, FrameError] = {}
        self._path = path
        self._limit = limit

    def move(self, start: int, end: int, points: npt.NDArray[np.floating]) -> None:
        """The true motion is not known: None."""

    def surfaces(self, index: int, points: npt.NDArray[np.floating]) -> None:
        """The scene's shape is not known: None."""

    def _images(self) -> Iterator[tuple[Decode, int, str]]:
        """Yield what decodes the image, its stamp in ns, its name."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Frame]:
        self.refused = {}
        last_stamp = -1
        for index, (decode, stamp, name) in enumerate(self._images()):
            if self._limit is not None and index >= self._limit:
                return
            try:
                image = decode()
            except FrameError as error:
                self.refused[name] = error
                continue
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


class ImageSource(_RealSource):
    """The images of a folder in the order of their names, or one image file; stamped at 10 Hz.

    Raises:
        ConfigurationError: no image in the folder.
    """

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        depth_scaling: DepthScaling = "percentile",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(path, limit)
        self.kind = "folder" if path.is_dir() else "image"
        self._options = depth_scaling, max_pixels
        entries = path.iterdir() if path.is_dir() else [path]
        self._files = sorted(entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ConfigurationError(f"folder {path} holds no image ({known}) and no rosbag2")

    def _images(self) -> Iterator[tuple[Decode, int, str]]:
        for index, file in enumerate(self._files):
            decode = partial(self._read, file)
            yield decode, _START_STAMP_NS + index * _FOLDER_PERIOD_NS, file.name

    def _read(self, file: Path) -> Image:
        try:
            return read_image(file, "rgb", *self._options)
        except StorageError as error:
            raise FrameError(str(error), "unreadable") from error


class VideoSource(_RealSource):
    """The frames of a video file that OpenCV can read, stamped by its frame rate.

    Frames are rasters as stored: a video's rotation tag is not obeyed, nor an image's.

    Raises:
        ConfigurationError: the file is no such video, or its frames are too large.
    """

    kind: SourceKind = "video"

    def __init__(self, path: Path, limit: int | None = None, max_pixels: int = MAX_PIXELS) -> None:
        super().__init__(path, limit)
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise ConfigurationError(
                    f"source {path} is neither a video nor a rosbag2 to OpenCV"
                )
            width, height = (
                int(capture.get(side))
                for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
            try:
                check_pixel_count(width, height, max_pixels)
            except FrameError as error:
                raise ConfigurationError(f"source {path}: {error}") from error
            if not capture.read()[0]:
                raise ConfigurationError(f"source {path} has no frame that OpenCV can read")
        finally:
            capture.release()

    def _images(self) -> Iterator[tuple[Decode, int, str]]:
        capture = cv2.VideoCapture(str(self._path))
        try:
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            rate = capture.get(cv2.CAP_PROP_FPS)
            period = round(1e9 / rate) if rate > 0 else _FOLDER_PERIOD_NS
            claimed = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            index, bad = 0, 0
            while bad <= _MOST_BAD_FRAMES and index + bad <= max(claimed, index):
                there, bgr = capture.read()
                if not there:
                    bad += 1
                    continue
                for _ in range(bad):  # OpenCV goes on behind a frame that does not decode
                    yield _undecodable, 0, f"video frame {index}"
                    index += 1
                bad = 0
                rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                stamp = _START_STAMP_NS + index * period
                yield partial(np.asarray, rgb), stamp, f"video frame {index}"
                index += 1
            if index < claimed:
                self.notes = [
                    f"{self.name} breaks off after {index} of the {int(claimed)} frames that its "
                    "header names"
                ]
        finally:
            capture.release()


def _undecodable() -> Image:
    raise FrameError("OpenCV cannot decode it", "corrupt")


class BagSource(_RealSource):
    """The images of a rosbag2, raw or compressed, with the stamps of their headers.

    Raises:
        ConfigurationError: no bag, or no images in it, or several topics of them.
    """

    kind: SourceKind = "bag"

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        topic: str | None = None,
        depth_scaling: DepthScaling = "percentile",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        from gps_denied_inference.bags.reader import Bag

        super().__init__(path, limit)
        self._bag = Bag(path, topic)
        self.notes = self._bag.notes  # grows while the bag is read
        self._options = {"depth_scaling": depth_scaling, "max_pixels": max_pixels}
        if len(self._bag) == 0:
            raise ConfigurationError(f"bag {path} has no messages on {self._bag.topic}")

    def _images(self) -> Iterator[tuple[Decode, int, str]]:
        for index, entry in enumerate(self._bag.images()):
            decode = partial(entry.decode, "rgb", **self._options)
            yield decode, entry.stamp_ns, f"{self._bag.topic} message {index}"
