"""What torch matchers share: which rows hold a keypoint, and which pairs are kept."""

from __future__ import annotations

import torch


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
