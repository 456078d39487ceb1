"""Images in, features out, through any runtime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import FrameError, GpsDeniedInferenceError
from gps_denied_inference.pipeline.contrast import Contrast
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.letterbox import Letterbox
from gps_denied_inference.runtimes.contract import EngineHandle, InferenceRuntime
from gps_denied_inference.runtimes.outputs import OutputCheck


class Extractor:
    """Runs an extractor engine on images of any size.

    Args:
        runtime: the runtime that made ``handle``.
        handle: a loaded extractor engine with input ``image`` uint8 (H, W, C), or (B, H, W, C).

    Attributes:
        batch: B, images that one forward pass takes.
        inference_time: s, wall time of the newest forward passes together.
    """

    def __init__(self, runtime: InferenceRuntime, handle: EngineHandle) -> None:
        self._runtime = runtime
        self._handle = handle
        self.height, self.width, self.channels = handle.inputs[0].shape[-3:]
        self.batch = handle.entry.config.batch
        self._model = handle.entry.manifest.model
        self._sha256 = handle.entry.manifest.model_sha256
        self._outputs = OutputCheck(handle)
        self._several = handle.inputs[0].zeros() if self.batch > 1 else None
        self.inference_time = 0.0

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
        (features,) = self.extract_together([image], scale)
        if isinstance(features, GpsDeniedInferenceError):
            raise features
        return features

    def extract_together(
        self, images: Sequence[npt.NDArray[np.uint8]], scale: float | None = None
    ) -> list[Features | GpsDeniedInferenceError]:
        """Extract features of several images, as many at a time as the engine takes.

        Each image gets what :meth:`extract` gives, or the error that it would raise; an error
        of a forward pass is that of all its images.

        Args:
            images, scale: as :meth:`extract` takes them.

        Raises:
            FrameError: an image's channels are not the engine's.
        """
        for image in images:
            self.check(image)
        size = (self.width, self.height)
        boxes = [Letterbox.fit((image.shape[1], image.shape[0]), size, scale) for image in images]
        answers: list[Features | GpsDeniedInferenceError] = []
        self.inference_time = 0.0
        for first in range(0, len(images), self.batch):
            now = slice(first, first + self.batch)
            tensors = [
                box.apply(image).reshape(self.height, self.width, self.channels)
                for image, box in zip(images[now], boxes[now], strict=True)
            ]
            try:
                each = self._infer(tensors)
            except GpsDeniedInferenceError as error:
                answers += [error] * len(tensors)
                continue
            for image, box, outputs in zip(images[now], boxes[now], each, strict=False):
                try:
                    answers.append(self._features(image, box, outputs))
                except GpsDeniedInferenceError as error:
                    answers.append(error)
        return answers

    def _infer(self, tensors: list[npt.NDArray[np.uint8]]) -> list[dict[str, npt.NDArray[Any]]]:
        """Run one forward pass; places of the engine that no image takes keep what they held."""
        if self._several is None:
            tensor = np.ascontiguousarray(tensors[0])
        else:
            tensor = self._several
            for place, one in enumerate(tensors):
                tensor[place] = one
        begin = time.perf_counter()
        with self._handle.running():
            outputs = self._runtime.infer(self._handle, {"image": tensor})
        self.inference_time += time.perf_counter() - begin
        return self._outputs.each(outputs)

    def _features(
        self, image: npt.NDArray[np.uint8], box: Letterbox, outputs: dict[str, npt.NDArray[Any]]
    ) -> Features:
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
            width=image.shape[1],
            height=image.shape[0],
            model=self._model,
            model_sha256=self._sha256,
            scale=box.scale,
            contrast=Contrast(image, *box.content),
        )
