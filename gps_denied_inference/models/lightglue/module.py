"""LightGlue (Lindenberger et al., ICCV 2023): the whole matcher as a torch module.

On a GPU every layer runs on every keypoint, so the shapes are static: sets are padded to K, and
rows at and after the count are masked out. On a CPU keypoints that a layer thinks unmatchable are
left out of the layers after it (section 3.3 of the paper; ``options.pruning``), as the
authors' code does. There is no early stop. LighterGlue is the small one trained for XFeat by its
authors.
"""

from __future__ import annotations

import torch
from torch import nn

from gps_denied_inference.models.checkpoint import load_state, read_state_dict
from gps_denied_inference.models.export import NetworkExport
from gps_denied_inference.models.lightglue.matching import mutual_best, valid_rows
from gps_denied_inference.models.lightglue.network import (
    LightGlueNetwork,
    Pair,
    Shape,
    inner_values,
)
from gps_denied_inference.models.lightglue.options import MASKED, match_threshold, pruning
from gps_denied_inference.models.lightglue.weights import folded
from gps_denied_inference.runtimes.specs import BuildConfig, Model

LIGHTERGLUE = Shape(descriptor_dim=64, width=96, heads=1, layers=6, prunes=True)
ALIKED_LIGHTGLUE = Shape(descriptor_dim=128, width=256, heads=4, layers=9)


class LightGlueMatcher(nn.Module):
    """The whole matcher engine; everything but the transformer runs in float32."""

    def __init__(self, network: LightGlueNetwork, config: BuildConfig, prunes: bool) -> None:
        super().__init__()
        self.network = network
        self.max_keypoints = config.max_keypoints
        self.threshold = match_threshold(config)
        self.prunes = prunes
        self.batch = config.batch

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Match two sets, or several pairs of them (see ``runtimes.contract``).

        Args:
            inputs: keypoints, descriptors, count and size of the first set, and of the second.

        Returns:
            matches0 int32 (K,) and scores0 float32 (K,); (B, K) for several pairs.
        """
        if self.batch == 1:
            return self._pair(*inputs)
        answer: tuple[torch.Tensor, torch.Tensor] = torch.vmap(self._pair)(*inputs)
        return answer

    def _pair(
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
        """Match one pair of sets."""
        kind = self.network.assignment.final_proj.weight.dtype
        points = (_centred(keypoints0, size0), _centred(keypoints1, size1))
        descriptors = (descriptors0.to(kind), descriptors1.to(kind))
        valid0 = valid_rows(count0, self.max_keypoints)
        valid1 = valid_rows(count1, self.max_keypoints)
        if self.prunes:
            return self._pruned(points, descriptors, (valid0, valid1))
        masks = [torch.where(valid, 0.0, MASKED) for valid in (valid0, valid1)]
        similarity, z0, z1 = (
            value.float()
            for value in self.network(
                points[0],
                descriptors[0],
                masks[0].to(kind),
                points[1],
                descriptors[1],
                masks[1].to(kind),
            )[:3]
        )
        score = _probability(similarity + masks[1], similarity + masks[0][:, None], z0, z1)
        return mutual_best(score, valid0, valid1, self.threshold)

    def _pruned(
        self, points: Pair, descriptors: Pair, valid: Pair
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Match what is left of both sets, and say so of the rows of the whole first one."""
        # Padding comes last; one row is kept of an empty set, which has no softmax.
        points0, points1 = (p[: max(1, int(v.sum()))] for p, v in zip(points, valid, strict=True))
        assigned, (rows0, rows1) = self.network.pruned(
            (points0, points1), (descriptors[0][: len(points0)], descriptors[1][: len(points1)])
        )
        similarity, z0, z1 = (value.float() for value in assigned)
        score = _probability(similarity, similarity, z0, z1)
        found, best = mutual_best(score, valid[0][rows0], valid[1][rows1], self.threshold)
        partner = torch.where(found >= 0, rows1[found.clamp(min=0).long()].to(torch.int32), found)
        matches = torch.full((self.max_keypoints,), -1, dtype=torch.int32, device=best.device)
        scores = best.new_zeros(self.max_keypoints)
        return matches.scatter(0, rows0, partner), scores.scatter(0, rows0, best)


def _probability(
    along_rows: torch.Tensor, along_columns: torch.Tensor, z0: torch.Tensor, z1: torch.Tensor
) -> torch.Tensor:
    """How probable each pair is, from their similarity (masked for each way) and matchability."""
    rows = torch.softmax(along_rows, dim=1) * torch.sigmoid(z0)[:, None]
    return rows * torch.softmax(along_columns, dim=0) * torch.sigmoid(z1)


def _centred(keypoints: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return (keypoints - size / 2) / (size.max() / 2)


def _load(model: Model, shape: Shape, prefix: str) -> LightGlueNetwork:
    state = {
        key.removeprefix(prefix): value
        for key, value in read_state_dict(model).items()
        if key.startswith(prefix)
    }
    kept = {}
    for key, value in state.items():
        if key.startswith(("token_confidence.", "extractor.")):
            continue  # early stopping, and the extractor it was trained beside
        if key.startswith("log_assignment."):
            last = f"log_assignment.{shape.layers - 1}."
            if not key.startswith(last):
                if not shape.prunes or ".matchability." not in key:
                    continue  # for early stopping too
                _, layer, rest = key.split(".", 2)
                key = f"matchability.{layer}.{rest.removeprefix('matchability.')}"
            key = key.replace(last, "assignment.")
        for block in ("self_attn", "cross_attn"):  # older files name the blocks first
            if key.startswith(f"{block}."):
                _, index, rest = key.split(".", 2)
                key = f"transformers.{index}.{block}.{rest}"
        kept[key] = value
    network = LightGlueNetwork(shape)
    load_state(network, folded(kept, shape), model)
    return network.eval()


def _export(load: object, shape: Shape) -> NetworkExport:
    k = 8
    one = (torch.zeros(k, 2), torch.zeros(k, shape.descriptor_dim), torch.zeros(k))
    names = [f"{name}{i}" for i in (0, 1) for name in ("points", "descriptors", "mask")]
    return NetworkExport(
        load=load,  # type: ignore[arg-type]
        example=lambda: (*one, *one),
        inputs={name: {0: "keypoints"} for name in names},
        outputs={
            "similarity": {0: "keypoints", 1: "keypoints"},
            "matchability0": {0: "keypoints"},
            "matchability1": {0: "keypoints"},
            **{name: {0: "keypoints"} for name in inner_values(shape)},
        },
    )


class _Published:
    """One published LightGlue: what the registry calls for it."""

    def __init__(self, shape: Shape, prefix: str = "") -> None:
        self._shape, self._prefix = shape, prefix
        self.export = _export(self.load_network, shape)

    def load_network(self, model: Model) -> LightGlueNetwork:
        """Build the network in eval mode. Raises as :meth:`load_matcher`."""
        return _load(model, self._shape, self._prefix)

    def load_matcher(self, model: Model, config: BuildConfig) -> LightGlueMatcher:
        """Build the matcher in eval mode.

        Raises:
            ModelNotFoundError, ModelIntegrityError, ModelMismatchError, InvalidParameterError.
        """
        prunes = pruning(config, can=self._shape.prunes)
        return LightGlueMatcher(self.load_network(model), config, prunes).eval()


_LIGHTERGLUE = _Published(LIGHTERGLUE, prefix="matcher.")
load_lighterglue, LIGHTERGLUE_EXPORT = _LIGHTERGLUE.load_matcher, _LIGHTERGLUE.export

_ALIKED_LIGHTGLUE = _Published(ALIKED_LIGHTGLUE)
load_aliked_lightglue, ALIKED_LIGHTGLUE_EXPORT = (
    _ALIKED_LIGHTGLUE.load_matcher,
    _ALIKED_LIGHTGLUE.export,
)
