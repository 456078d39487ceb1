"""ALIKED (Zhao et al., IEEE TIM 2023) as torch modules: network, detector and descriptor head.

Written from the paper and from the shapes of the published checkpoints; parameter names follow
those. Deformable convolutions and the deformable descriptor head sample with ``grid_sample``, which
ONNX Runtime and TensorRT have too, so that every runtime computes the same thing. All in float32:
positions across an image do not fit into float16 to a tenth of a pixel.

Detection (differentiable keypoint detection of ALIKE, section III-B there): maxima of the score map
after three rounds of non-maximum suppression within 2 px, moved to the soft-argmax of their 5x5
neighbourhood; the score is read where the keypoint then lies.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from gps_denied_inference.models.aliked.options import (
    RADIUS,
    TEMPERATURE,
    check_config,
)
from gps_denied_inference.models.checkpoint import load_state, read_state_dict
from gps_denied_inference.models.export import NetworkExport
from gps_denied_inference.runtimes.specs import BuildConfig, Model


def _span(x: torch.Tensor) -> torch.Tensor:
    """Return width - 1 and height - 1 of (..., H, W) as float32 (2,), also while exporting."""
    return torch._shape_as_tensor(x)[-2:].flip(0).to(torch.float32) - 1.0


def _limit(offset: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Keep offsets within a quarter of the longer side of ``x``."""
    most = (torch._shape_as_tensor(x)[-2:].max().to(torch.float32) / 4.0).to(offset.device)
    return torch.maximum(torch.minimum(offset, most), -most)


def _sample(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Read (1, C, H, W) bilinearly at positions (A, B, 2) px, zero outside: (1, C, A, B)."""
    grid = positions * (2.0 / _span(x).to(x.device)) - 1.0
    return functional.grid_sample(
        x, grid[None], mode="bilinear", padding_mode="zeros", align_corners=True
    )


class _DeformableConv(nn.Module):
    """3x3 convolution whose taps move, without modulation (Dai et al., ICCV 2017)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.offset_conv = nn.Conv2d(inputs, 18, 3, padding=1)
        self.regular_conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (1, outputs, H, W) of (1, inputs, H, W)."""
        height, width = x.shape[-2:]
        channels = self.regular_conv.in_channels  # not of the shape: the exporter must know it
        offset = _limit(self.offset_conv(x), x)[0].reshape(9, 2, height, width)
        rows = torch.arange(height, device=x.device, dtype=x.dtype)
        columns = torch.arange(width, device=x.device, dtype=x.dtype)
        tap = torch.arange(-1, 2, device=x.device, dtype=x.dtype)
        y = offset[:, 0] + tap.repeat_interleave(3)[:, None, None] + rows[:, None]
        x_ = offset[:, 1] + tap.repeat(3)[:, None, None] + columns
        positions = torch.stack([x_, y], dim=-1).reshape(9 * height, width, 2)
        taps = _sample(x, positions).reshape(1, channels * 9, height, width)
        weight = self.regular_conv.weight.reshape(-1, channels * 9, 1, 1)
        return functional.conv2d(taps, weight)


def _conv(inputs: int, outputs: int, deformable: bool) -> nn.Module:
    if deformable:
        return _DeformableConv(inputs, outputs)
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class _Block(nn.Module):
    """Two convolutions, with a shortcut around them in all blocks but the first."""

    def __init__(self, inputs: int, outputs: int, deformable: bool, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, deformable)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, deformable)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1) if shortcut else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (1, outputs, H, W)."""
        out = self.bn2(self.conv2(functional.selu(self.bn1(self.conv1(x)))))
        return functional.selu(out if self.downsample is None else out + self.downsample(x))


class _DescriptorHead(nn.Module):
    """Sparse deformable descriptor head: each keypoint chooses where its descriptor is read."""

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.dim, self.positions = dim, positions
        self.offset_conv = nn.Sequential(
            nn.Conv2d(dim, 2 * positions, 3),
            nn.SELU(),
            nn.Conv2d(2 * positions, 2 * positions, 1),
        )
        self.sf_conv = nn.Conv2d(dim, dim, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.zeros(positions, dim, dim))

    def forward(self, features: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        """Return unit descriptors (K, D) at ``keypoints`` (K, 2) px; features are (1, D, H, W)."""
        height, width = features.shape[-2:]
        dim = self.dim
        first = torch.floor(keypoints).to(torch.int64) - 1
        left = torch.clamp(first[:, 0], min=0, max=width - 4)
        top = torch.clamp(first[:, 1], min=0, max=height - 4)
        tap = torch.arange(9, device=features.device)
        down, right = torch.div(tap, 3, rounding_mode="floor"), tap % 3
        index = (top[:, None] + down) * width + left[:, None] + right
        patches = features.reshape(dim, -1).T[index]  # (K, 9, D)
        patches = patches.transpose(1, 2).reshape(-1, dim, 3, 3)
        offset = _limit(self.offset_conv(patches), features).reshape(-1, 2, self.positions)
        positions = keypoints[:, None] + offset.transpose(1, 2)
        read = functional.selu(self.sf_conv(_sample(features, positions)))[0]  # (D, K, M)
        read = read.permute(1, 2, 0).reshape(-1, self.positions * dim)
        descriptors = read @ self.agg_weights.reshape(self.positions * dim, dim)
        return functional.normalize(descriptors, dim=1)


class AlikedNetwork(nn.Module):
    """The network: dense features and scores, and descriptors at given keypoints."""

    def __init__(self, channels: tuple[int, int, int, int], dim: int, positions: int) -> None:
        super().__init__()
        c1, c2, c3, c4 = channels
        self.block1 = _Block(3, c1, False, False)
        self.block2 = _Block(c1, c2, False, True)
        self.block3 = _Block(c2, c3, True, True)
        self.block4 = _Block(c3, c4, True, True)
        self.conv1 = nn.Conv2d(c1, dim // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(c2, dim // 4, 1, bias=False)
        self.conv3 = nn.Conv2d(c3, dim // 4, 1, bias=False)
        self.conv4 = nn.Conv2d(c4, dim // 4, 1, bias=False)
        self.score_head = nn.Sequential(
            nn.Conv2d(dim, 8, 1, bias=False),
            nn.SELU(),
            nn.Conv2d(8, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.SELU(),
            nn.Conv2d(4, 1, 3, padding=1, bias=False),
        )
        self.desc_head = _DescriptorHead(dim, positions)

    def dense(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (1, 1, H, W) and unit features (1, D, H, W).

        Args:
            image: (1, 3, H, W) RGB in 0..1, sides multiples of 32.
        """
        x1 = self.block1(image)
        x2 = self.block2(functional.avg_pool2d(x1, 2))
        x3 = self.block3(functional.avg_pool2d(x2, 4))
        x4 = self.block4(functional.avg_pool2d(x3, 4))
        maps = [functional.selu(self.conv1(x1))]
        for convolution, x, scale in (
            (self.conv2, x2, 2),
            (self.conv3, x3, 8),
            (self.conv4, x4, 32),
        ):
            coarse = functional.selu(convolution(x))
            maps.append(
                functional.interpolate(
                    coarse, scale_factor=scale, mode="bilinear", align_corners=True
                )
            )
        joined = torch.cat(maps, dim=1)
        return torch.sigmoid(self.score_head(joined)), functional.normalize(joined, dim=1)

    def forward(
        self, image: torch.Tensor, keypoints: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scores and features as :meth:`dense`, and descriptors (K, D) at ``keypoints``."""
        scores, features = self.dense(image)
        return scores, features, self.desc_head(features, keypoints)


def suppress(scores: torch.Tensor) -> torch.Tensor:
    """Keep maxima within the radius, and in two more rounds those hidden by what is suppressed."""

    def highest(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 2 * RADIUS + 1, stride=1, padding=RADIUS)

    zero = torch.zeros_like(scores)
    kept = scores == highest(scores)
    for _ in range(2):
        near = highest(kept.to(scores.dtype)) > 0
        rest = torch.where(near, zero, scores)
        kept = kept | ((rest == highest(rest)) & ~near)
    return torch.where(kept, scores, zero)


class AlikedExtractor(nn.Module):
    """The whole extractor engine (see ``runtimes.contract``)."""

    def __init__(self, network: AlikedNetwork, config: BuildConfig) -> None:
        super().__init__()
        self.network = network
        self.keypoints = config.max_keypoints
        self.threshold = config.detection_threshold

    def forward(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Extract from uint8 (H, W, C): keypoints, scores, descriptors, count."""
        rgb = image.permute(2, 0, 1)[None].float() / 255.0
        heat, features = self.network.dense(rgb.expand(1, 3, -1, -1))
        position, score = self._detect(heat)
        valid = score > 0
        mask = valid.to(score.dtype)
        descriptors = self.network.desc_head(features, position)
        count = valid.sum(dtype=torch.int32).reshape(1)
        column = mask[:, None]
        return position * column, score * mask, descriptors * column, count

    def _detect(self, heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return positions (K, 2) px and scores (K,) in falling order, 0 for no keypoint."""
        height, width = heat.shape[-2:]
        peaks = suppress(heat)[0, 0]
        inner = torch.zeros_like(peaks)
        inside = (slice(RADIUS, height - RADIUS), slice(RADIUS, width - RADIUS))
        inner[inside] = torch.where(peaks[inside] > self.threshold, peaks[inside], inner[inside])
        found, index = torch.topk(inner.flatten(), min(self.keypoints, height * width))
        missing = self.keypoints - len(found)
        found, index = functional.pad(found, (0, missing)), functional.pad(index, (0, missing))
        xy = torch.stack([index % width, index // width], dim=1)
        side = torch.arange(-RADIUS, RADIUS + 1, device=heat.device)
        step = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).reshape(-1, 2)
        padded = functional.pad(heat[0, 0], (RADIUS,) * 4)
        near = xy[:, None] + step + RADIUS
        patch = padded[near[..., 1], near[..., 0]]
        weight = torch.softmax(patch / TEMPERATURE, dim=1)
        position = xy + weight @ step.to(weight.dtype)
        score = _sample(heat, position[None])[0, 0, 0] * (found > 0)
        score, order = torch.sort(score, descending=True, stable=True)
        return position[order], score


def _network(model: Model) -> AlikedNetwork:
    state = read_state_dict(model)
    try:
        channels = tuple(state[f"block{i}.bn1.weight"].shape[0] for i in (1, 2, 3, 4))
        positions, dim, _ = state["desc_head.agg_weights"].shape
    except (KeyError, ValueError):
        channels, positions, dim = (8, 16, 32, 64), 16, 64  # loading says that it does not fit
    network = AlikedNetwork(channels, dim, positions)  # type: ignore[arg-type]
    load_state(network, state, model)
    return network.eval()


def load_module(model: Model, config: BuildConfig) -> AlikedExtractor:
    """Build the extractor in eval mode.

    Raises:
        ModelNotFoundError, ModelIntegrityError, ModelMismatchError, InvalidParameterError.
    """
    check_config(config)
    return AlikedExtractor(_network(model), config).eval()


EXPORT = NetworkExport(
    load=_network,
    example=lambda: (torch.rand(1, 3, 64, 96), torch.rand(5, 2) * 40 + 5),
    inputs={"image": {2: "height", 3: "width"}, "keypoints": {0: "keypoints"}},
    outputs={
        "scores": {2: "height", 3: "width"},
        "features": {2: "height", 3: "width"},
        "descriptors": {0: "keypoints"},
    },
)
