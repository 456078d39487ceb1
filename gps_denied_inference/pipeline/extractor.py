"""One image in, features out, through any runtime."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError
from gps_denied_inference.pipeline.contrast import Contrast
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.runtimes.contract import EngineHandle, InferenceRuntime
from gps_denied_inference.runtimes.outputs import OutputCheck


class Extractor:
    """Runs an extractor engine on images of any size.

    Args:
        runtime: the runtime that made ``handle``.
        handle: a loaded extractor engine with input ``image`` uint8 (H, W, C).
    """

    def __init__(self, runtime: InferenceRuntime, handle: EngineHandle) -> None:
        self._runtime = runtime
        self._handle = handle
        self.height, self.width, self.channels = handle.inputs[0].shape
        model = handle.entry.model
        self._model = model.name
        self._sha256 = model.weights_sha256 or model.graph_sha256
        self._outputs = OutputCheck(handle)
        self.inference_time = 0.0
        """s, wall time of the newest forward pass."""

    def check(self, image: npt.NDArray[np.uint8]) -> None:
        """Refuse an image that the engine cannot take.

        Raises:
            FrameError: the image's channels are not the engine's.
        """
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.channels:
            raise FrameError(
                f"image has {channels} channel(s), the engine takes {self.channels}: "
                "set parameter 'color' to match",
                "wrong_channels",
            )

    def extract(self, image: npt.NDArray[np.uint8]) -> Features:
        """Extract features; keypoints come out in px of ``image``.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB. One of another size than the engine's is resized
                to it, keeping no aspect ratio, and keypoints are scaled back.

        Raises:
            FrameError: the image's channels are not the engine's.
            InvalidOutputError: the engine's answer is not what its specification says.
            InferenceError, DeviceOutOfMemoryError, InvalidHandleError: from the runtime.
        """
        self.check(image)
        height, width = image.shape[:2]
        resized: npt.NDArray[Any] = image
        if (height, width) != (self.height, self.width):
            shrinks = height * width > self.height * self.width
            # Area averaging keeps a shrunk image free of aliases, which pass for corners.
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            resized = cv2.resize(image, (self.width, self.height), interpolation=method)
        tensor = np.ascontiguousarray(resized).reshape(self.height, self.width, self.channels)
        begin = time.perf_counter()
        outputs = self._runtime.infer(self._handle, {"image": tensor})
        self.inference_time = time.perf_counter() - begin
        count = self._outputs.features(outputs)
        keypoints = outputs["keypoints"][:count]
        if (height, width) != (self.height, self.width):
            # cv2.resize aligns pixel edges: x of the small image lies at (x + 0.5) * s - 0.5.
            scale = np.array([width / self.width, height / self.height], dtype=np.float32)
            keypoints = (keypoints + np.float32(0.5)) * scale - np.float32(0.5)
        return Features(
            keypoints=np.ascontiguousarray(keypoints, dtype=np.float32),
            scores=outputs["scores"][:count],
            descriptors=outputs["descriptors"][:count],
            width=width,
            height=height,
            model=self._model,
            model_sha256=self._sha256,
            scale=max(width / self.width, height / self.height),
            contrast=Contrast.of(image, self.width, self.height),
        )
