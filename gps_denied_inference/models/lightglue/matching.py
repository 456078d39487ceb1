"""What torch matchers share, and mutual nearest neighbours as a torch module."""

from __future__ import annotations

import torch
from torch import nn

from gps_denied_inference.models.export import NetworkExport
from gps_denied_inference.models.lightglue.options import (
    MASKED,
    match_threshold,
    min_cosine,
    ratio,
)
from gps_denied_inference.runtimes.specs import BuildConfig, Model

__all__ = ["MASKED", "match_threshold", "mutual_best", "valid_rows"]


def valid_rows(count: torch.Tensor, keypoints: int) -> torch.Tensor:
    """Return bool (K,): rows before ``count`` int32 (1,)."""
    return torch.arange(keypoints, device=count.device, dtype=torch.int32) < count


def mutual_best(
    score: torch.Tensor, valid0: torch.Tensor, valid1: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep pairs that are each other's best and score above the threshold.

    Args:
        score: (K, K) float32.
        valid0, valid1: (K,) bool, rows that hold a keypoint.
        threshold: smallest score that is not kept.

    Returns:
        matches0 int32 (K,) with -1 for none, scores0 float32 (K,) with 0 for none.
    """
    best, partner = score.max(dim=1)
    back = score.argmax(dim=0)[partner]
    own = torch.arange(score.shape[0], device=score.device)
    kept = (back == own) & (best > threshold) & valid0 & valid1[partner]
    matches = torch.where(kept, partner, torch.full_like(partner, -1)).to(torch.int32)
    return matches, torch.where(kept, best, torch.zeros_like(best))


class MutualNearestNeighbour(nn.Module):
    """Descriptors that are each other's nearest, by cosine."""

    def __init__(self, config: BuildConfig) -> None:
        super().__init__()
        self.max_keypoints = config.max_keypoints
        self.min_cosine = min_cosine(config)
        self.ratio = ratio(config)

    def forward(
        self,
        keypoints0: torch.Tensor,
        descriptors0: torch.Tensor,
        count0: torch.Tensor,
        size0: torch.Tensor,
        keypoints1: torch.Tensor,
        descriptors1: torch.Tensor,
        count1: torch.Tensor,
        size1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Match two sets (see ``runtimes.contract``): matches0 int32 (K,), scores0 float32 (K,)."""
        valid0 = valid_rows(count0, self.max_keypoints)
        valid1 = valid_rows(count1, self.max_keypoints)
        cosine = descriptors0 @ descriptors1.T
        cosine = cosine + torch.where(valid1, 0.0, MASKED)
        cosine = cosine + torch.where(valid0, 0.0, MASKED)[:, None]
        matches, scores = mutual_best(cosine, valid0, valid1, self.min_cosine)
        if self.ratio < 1.0 and self.max_keypoints > 1:
            partner = matches.clamp(min=0).long()
            distinct = self._distinct(cosine, 1) & self._distinct(cosine, 0)[partner]
            matches = torch.where(distinct, matches, torch.full_like(matches, -1))
            scores = torch.where(distinct, scores, torch.zeros_like(scores))
        return matches, scores.clamp(max=1.0)

    def _distinct(self, cosine: torch.Tensor, dim: int) -> torch.Tensor:
        """Lowe's test along one axis, bool (K,), on squared distances of unit vectors."""
        best, second = (1.0 - torch.topk(cosine, 2, dim=dim).values).unbind(dim)
        return best <= self.ratio**2 * second


class Cosines(nn.Module):
    """All cosines of two sets of unit descriptors, the part that the exported graph holds."""

    def forward(self, descriptors0: torch.Tensor, descriptors1: torch.Tensor) -> torch.Tensor:
        """Return (K, K) of two (K, D)."""
        return descriptors0 @ descriptors1.T


MUTUAL_NEAREST_NEIGHBOUR_EXPORT = NetworkExport(
    load=lambda model: Cosines().eval(),
    example=lambda: (torch.zeros(8, 64), torch.zeros(8, 64)),
    inputs={name: {0: "keypoints", 1: "dim"} for name in ("descriptors0", "descriptors1")},
    outputs={"similarity": {0: "keypoints", 1: "keypoints"}},
)


def load_mutual_nearest_neighbour(model: Model, config: BuildConfig) -> MutualNearestNeighbour:
    """Build the matcher in eval mode; it has no weights.

    Raises:
        InvalidParameterError: an option out of bounds.
    """
    del model
    return MutualNearestNeighbour(config).eval()
