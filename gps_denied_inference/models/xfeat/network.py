"""XFeat (Potje et al., CVPR 2024): the network and the whole extractor as torch modules.

Written from the paper and from the shapes of the published checkpoint; parameter names follow the
checkpoint so that it loads unchanged.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from gps_denied_inference.models.checkpoint import load_state, read_state_dict
from gps_denied_inference.models.export import NetworkExport
from gps_denied_inference.models.sampling import bicubic_taps, bilinear_matrix
from gps_denied_inference.runtimes.specs import BuildConfig, Model

CELL = 8  # px of the image per cell of the feature map
MULTIPLE = 32  # px; the network halves the image five times
DESCRIPTOR_DIM = 64


class ConvBlock(nn.Module):
    """Convolution, batch normalisation without learnt scale, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if kernel % 2 else 0
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers to (B, C, H, W)."""
        out: torch.Tensor = self.layer(x)
        return out


class XFeatNetwork(nn.Module):
    """The convolutional part: normalised grey image in, three maps at an eighth of its size out."""

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, stride=4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(
            ConvBlock(1, 4), ConvBlock(4, 8, stride=2), ConvBlock(8, 8), ConvBlock(8, 24, stride=2)
        )
        self.block2 = nn.Sequential(ConvBlock(24, 24), ConvBlock(24, 24))
        self.block3 = nn.Sequential(
            ConvBlock(24, 64, stride=2), ConvBlock(64, 64), ConvBlock(64, 64, kernel=1)
        )
        self.block4 = nn.Sequential(
            ConvBlock(64, 64, stride=2), ConvBlock(64, 64), ConvBlock(64, 64)
        )
        self.block5 = nn.Sequential(
            ConvBlock(64, 128, stride=2),
            ConvBlock(128, 128),
            ConvBlock(128, 128),
            ConvBlock(128, 64, kernel=1),
        )
        self.block_fusion = nn.Sequential(
            ConvBlock(64, 64), ConvBlock(64, 64), nn.Conv2d(64, 64, 1)
        )
        self.heatmap_head = nn.Sequential(
            ConvBlock(64, 64, kernel=1), ConvBlock(64, 64, kernel=1), nn.Conv2d(64, 1, 1)
        )
        self.keypoint_head = nn.Sequential(
            ConvBlock(1, 64, kernel=CELL, stride=CELL),
            ConvBlock(64, 64, kernel=1),
            ConvBlock(64, 64, kernel=1),
            nn.Conv2d(64, 65, 1),
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the network.

        Args:
            image: (B, 1, H, W), zero mean and unit variance, H and W multiples of 32.

        Returns:
            Features (B, 64, H/8, W/8); logits (B, 65, H/8, W/8) of the 64 pixels of a cell and of
            "no keypoint"; reliability (B, 1, H/8, W/8), 0..1.
        """
        x2 = self.block2(self.block1(image) + self.skip1(image))
        x3 = self.block3(x2)
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        fused = (
            x3
            + functional.interpolate(x4, scale_factor=2.0, mode="bilinear", align_corners=False)
            + functional.interpolate(x5, scale_factor=4.0, mode="bilinear", align_corners=False)
        )
        features = self.block_fusion(fused)
        reliability = torch.sigmoid(self.heatmap_head(features))
        return features, self.keypoint_head(image), reliability


class XFeatExtractor(nn.Module):
    """The whole extractor: an image in, keypoints, scores, descriptors and their count out.

    The image normalisation, the heat map and everything after it run in float32; ``half()`` turns
    only the network to float16.
    """

    def __init__(self, config: BuildConfig) -> None:
        super().__init__()
        self.height, self.width, self.batch = config.height, config.width, config.batch
        self.max_keypoints = config.max_keypoints
        self.detection_threshold = config.detection_threshold
        self.inner_height = config.height // MULTIPLE * MULTIPLE
        self.inner_width = config.width // MULTIPLE * MULTIPLE
        self.network = XFeatNetwork()
        self._make_tables(torch.device("cpu"))

    def _make_tables(self, device: torch.device) -> None:
        # Plain attributes, not buffers: half() would round them, and they need float32.
        scale = [self.width / self.inner_width, self.height / self.inner_height]
        self._tables = {"scale": torch.tensor(scale, device=device)}
        for axis, pixels in (("y", self.inner_height), ("x", self.inner_width)):
            cells, weights = bicubic_taps(pixels, pixels // CELL)
            matrix = bilinear_matrix(pixels, pixels // CELL)
            self._tables[f"{axis}_cells"] = torch.from_numpy(cells).long().to(device)
            self._tables[f"{axis}_weights"] = torch.from_numpy(weights).to(device)
            self._tables[f"{axis}_matrix"] = torch.from_numpy(matrix).to(device)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._make_tables(next(self.network.parameters()).device)
        return self

    def forward(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Extract features.

        Args:
            image: uint8 (H, W, C), C = 1 or 3; (B, H, W, C) where the batch is more than 1.

        Returns:
            keypoints (K, 2) px, scores (K,), descriptors (K, 64), all float32, and count int32
            (1,), each with a leading dimension B where the image has one; rows at and after count
            are zero.
        """
        gray = self._normalised(image if self.batch > 1 else image[None])
        maps = self.network(gray.to(next(self.network.parameters()).dtype))
        features, logits, reliability = (m.float() for m in maps)
        x, y, scores = self._detect(logits, reliability)
        descriptors = self._describe(features, x, y)
        valid = scores > 0
        scale = self._tables["scale"]
        keypoints = (torch.stack([x, y], dim=2) + 0.5) * scale - 0.5
        answers = (
            keypoints * valid[..., None],
            scores * valid,
            descriptors * valid[..., None],
            valid.sum(dim=1, keepdim=True, dtype=torch.int32),
        )
        if self.batch > 1:
            return answers
        keypoints, scores, descriptors, count = (answer[0] for answer in answers)
        return keypoints, scores, descriptors, count

    def _normalised(self, image: torch.Tensor) -> torch.Tensor:
        gray = image.float().mean(dim=3)[:, None]
        size = (self.inner_height, self.inner_width)
        if gray.shape[-2:] != size:
            gray = functional.interpolate(gray, size, mode="bilinear", align_corners=False)
        return functional.instance_norm(gray, eps=1e-5)

    def _detect(
        self, logits: torch.Tensor, reliability: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return x and y (B, K) int64 in px of the inner image and the scores (B, K)."""
        probability = torch.softmax(logits, dim=1)[:, :64]
        heat = functional.pixel_shuffle(probability, CELL)
        peak = (heat == functional.max_pool2d(heat, 5, 1, 2)) & (heat > self.detection_threshold)
        t = self._tables
        score = heat[:, 0] * (t["y_matrix"] @ reliability[:, 0] @ t["x_matrix"].T)
        score = torch.where(peak[:, 0], score, score.new_zeros(()))
        # Peaks of a 5x5 non-maximum suppression lie at least 3 px apart: a 2x2 block holds one.
        blocks = functional.pixel_unshuffle(score[:, None], 2).flatten(2)
        best, place = blocks.max(dim=1)
        missing = self.max_keypoints - best.shape[1]
        if missing > 0:
            best = functional.pad(best, (0, missing))
            place = functional.pad(place, (0, missing))
        scores, block = torch.topk(best, self.max_keypoints, dim=1)
        place = place.gather(1, block)
        block_x = block % (self.inner_width // 2)
        block_y = torch.div(block, self.inner_width // 2, rounding_mode="floor")
        x = block_x * 2 + place % 2
        y = block_y * 2 + torch.div(place, 2, rounding_mode="floor")
        valid = scores > 0
        return x * valid, y * valid, scores

    def _describe(self, features: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sample unit descriptors (B, K, 64) bicubically at whole pixels."""
        rows, columns = self.inner_height // CELL, self.inner_width // CELL
        dense = functional.normalize(features.flatten(2).transpose(1, 2).flatten(0, 1), dim=1)
        t = self._tables
        # The images' maps lie one below the other.
        first = torch.arange(len(x), device=x.device)[:, None, None] * rows
        down = (t["y_cells"][y] + first).flatten(0, 1)
        cells = down[:, :, None] * columns + t["x_cells"][x].flatten(0, 1)[:, None, :]
        y_weights, x_weights = t["y_weights"][y].flatten(0, 1), t["x_weights"][x].flatten(0, 1)
        weights = y_weights[:, :, None] * x_weights[:, None, :]
        taps = dense[cells.flatten(1)]
        sampled = (weights.flatten(1)[:, None, :] @ taps)[:, 0]
        return functional.normalize(sampled, dim=1).view(*x.shape, DESCRIPTOR_DIM)


def load_network(model: Model) -> XFeatNetwork:
    """Build the network in eval mode with the published weights. Raises as ``load_module``."""
    state = read_state_dict(model)
    network = XFeatNetwork()
    # The checkpoint also holds the authors' fine matcher, which no engine here uses.
    kept = {k: v for k, v in state.items() if not k.startswith("fine_matcher.")}
    # Published: cut the image into 8x8 cells, then a 1x1 convolution over their 64 pixels. That is
    # one convolution of kernel and stride 8 with the same weights.
    head = kept.get("keypoint_head.0.layer.0.weight")
    if head is not None and head.shape == (64, CELL * CELL, 1, 1):
        kept["keypoint_head.0.layer.0.weight"] = head.view(64, 1, CELL, CELL)
    load_state(network, kept, model)
    return network.eval()


def load_module(model: Model, config: BuildConfig) -> XFeatExtractor:
    """Build the whole extractor in eval mode.

    Raises:
        ModelNotFoundError, ModelIntegrityError, ModelMismatchError.
    """
    extractor = XFeatExtractor(config)
    extractor.network = load_network(model)
    return extractor.eval()


EXPORT = NetworkExport(
    load=load_network,
    example=lambda: (torch.zeros(1, 1, 96, 128),),
    inputs={"image": {2: "height", 3: "width"}},
    outputs={
        "features": {2: "cell_rows", 3: "cell_columns"},
        "keypoint_logits": {2: "cell_rows", 3: "cell_columns"},
        "reliability": {2: "cell_rows", 3: "cell_columns"},
    },
)
