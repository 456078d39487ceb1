"""One image in, features out, through any runtime."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError
from gps_denied_inference.pipeline.contrast import Contrast
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.letterbox import Letterbox
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
        self._model = handle.entry.manifest.model
        self._sha256 = handle.entry.manifest.model_sha256
        self._outputs = OutputCheck(handle)
        self.inference_time = 0.0
        """s, wall time of the newest forward pass."""

    @property
    def model_sha256(self) -> str:
        """Hex, of the weights or graph that run: what makes descriptors comparable."""
        return self._sha256

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

    def extract(self, image: npt.NDArray[np.uint8], scale: float | None = None) -> Features:
        """Extract features; keypoints come out in px of ``image``.

        An image of another size than the engine's is brought to it with its aspect ratio kept (see
        :class:`Letterbox`); what is found in the padding or at its edge is left out.

        Args:
            image: uint8 (H, W) or (H, W, 3) RGB.
            scale: px that the network sees per px of ``image``; None, or one that the engine does
                not hold: the largest that it holds.

        Raises:
            FrameError: the image's channels are not the engine's.
            InvalidOutputError: the engine's answer is not what its specification says.
            InferenceError, DeviceOutOfMemoryError, InvalidHandleError: from the runtime.
        """
        self.check(image)
        height, width = image.shape[:2]
        box = Letterbox.fit((width, height), (self.width, self.height), scale)
        tensor = np.ascontiguousarray(box.apply(image))
        tensor = tensor.reshape(self.height, self.width, self.channels)
        begin = time.perf_counter()
        with self._handle.running():
            outputs = self._runtime.infer(self._handle, {"image": tensor})
        self.inference_time = time.perf_counter() - begin
        count = self._outputs.features(outputs)
        keypoints, scores = outputs["keypoints"][:count], outputs["scores"][:count]
        descriptors = outputs["descriptors"][:count]
        keep = box.outside_padding(keypoints)
        if keep is not None:
            keypoints, scores, descriptors = keypoints[keep], scores[keep], descriptors[keep]
        return Features(
            keypoints=np.ascontiguousarray(box.to_received(keypoints), dtype=np.float32),
            scores=scores,
            descriptors=descriptors,
            width=width,
            height=height,
            model=self._model,
            model_sha256=self._sha256,
            scale=box.scale,
            contrast=Contrast.of(image, *box.content),
        )
