"""LightGlue (Lindenberger et al., ICCV 2023): the network and the whole matcher as torch modules.

Every layer runs on every keypoint: no early stop, no pruning, so the shapes are static. Sets are
padded to K, and rows at and after the count are masked out. Written from the paper and from the
shapes of the published checkpoints; parameter names follow those. LighterGlue is the small one
trained for XFeat by its authors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from gps_denied_inference.architectures.checkpoint import load_state, read_state_dict
from gps_denied_inference.architectures.export import NetworkExport
from gps_denied_inference.architectures.matching import (
    MASKED,
    match_threshold,
    mutual_best,
    valid_rows,
)
from gps_denied_inference.runtimes.protocol import BuildConfig, Model


@dataclass(frozen=True)
class Shape:
    """Sizes of one LightGlue: descriptor length in, width, attention heads, layers."""

    descriptor_dim: int
    width: int
    heads: int
    layers: int


LIGHTERGLUE = Shape(descriptor_dim=64, width=96, heads=1, layers=6)
ALIKED_LIGHTGLUE = Shape(descriptor_dim=128, width=256, heads=4, layers=9)


def _rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, half: int) -> torch.Tensor:
    """Turn channel i of the first half with channel i of the second; x is (heads, K, 2 half)."""
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention over (heads, K, C), q scaled already; mask (K,) is added to the keys' logits."""
    return torch.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def _feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * width, 2 * width),
        nn.LayerNorm(2 * width),
        nn.GELU(),
        nn.Linear(2 * width, width),
    )


class _Heads(nn.Module):
    """Splits (K, C) into (heads, K, C/heads) and back. Only K is unknown to the exporter."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.scale = self.size**-0.5

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Return (heads, K, C/heads) of (K, C)."""
        return x.reshape(-1, self.heads, self.size).transpose(0, 1)

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """Return (K, C) of (heads, K, C/heads)."""
        return x.transpose(0, 1).reshape(-1, self.heads * self.size)


class SelfAttention(_Heads):
    """Keypoints of one image exchange what they know, aware of where they lie."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.Wqkv = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.ffn = _feed_forward(width)

    def forward(
        self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Update x (K, C)."""
        qkv = self.Wqkv(x)
        width = self.heads * self.size
        q, k, v = (self.split(qkv[:, i * width : (i + 1) * width]) for i in range(3))
        q, k = (_rotate(part, cosine, sine, self.size // 2) for part in (q, k))
        message = self.out_proj(self.join(_attend(q * self.scale, k, v, mask)))
        out: torch.Tensor = x + self.ffn(torch.cat([x, message], dim=-1))
        return out


class CrossAttention(_Heads):
    """Keypoints of two images exchange what they know; queries and keys share one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.to_qk = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Linear(width, width)
        self.ffn = _feed_forward(width)

    def forward(
        self, x0: torch.Tensor, x1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update x0 and x1, each (K, C)."""
        qk0, qk1 = self.split(self.to_qk(x0)), self.split(self.to_qk(x1))
        v0, v1 = self.split(self.to_v(x0)), self.split(self.to_v(x1))
        message0 = self.to_out(self.join(_attend(qk0 * self.scale, qk1, v1, mask1)))
        message1 = self.to_out(self.join(_attend(qk1 * self.scale, qk0, v0, mask0)))
        return (
            x0 + self.ffn(torch.cat([x0, message0], dim=-1)),
            x1 + self.ffn(torch.cat([x1, message1], dim=-1)),
        )


_Pair = tuple[torch.Tensor, torch.Tensor]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)

    def forward(self, x: _Pair, angles: tuple[_Pair, _Pair], masks: _Pair) -> _Pair:
        x0 = self.self_attn(x[0], *angles[0], masks[0])
        x1 = self.self_attn(x[1], *angles[1], masks[1])
        updated: _Pair = self.cross_attn(x0, x1, *masks)
        return updated


class _PositionalEncoding(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.Wr = nn.Linear(2, size // 2, bias=False)

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Angles reach tens of radians: float16 would blur them.
        angles = functional.linear(points.float(), self.Wr.weight.float())
        kind = self.Wr.weight.dtype
        return torch.cos(angles).to(kind), torch.sin(angles).to(kind)


class _Assignment(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.matchability = nn.Linear(width, 1)
        self.final_proj = nn.Linear(width, width)


class LightGlueNetwork(nn.Module):
    """The transformer: two padded sets in, their similarity and matchability out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_proj = (
            nn.Identity()
            if shape.descriptor_dim == shape.width
            else nn.Linear(shape.descriptor_dim, shape.width)
        )
        self.posenc = _PositionalEncoding(shape.width // shape.heads)
        self.transformers = nn.ModuleList(
            [_Layer(shape.width, shape.heads) for _ in range(shape.layers)]
        )
        self.assignment = _Assignment(shape.width)
        self.width = shape.width

    def forward(
        self,
        points0: torch.Tensor,
        descriptors0: torch.Tensor,
        mask0: torch.Tensor,
        points1: torch.Tensor,
        descriptors1: torch.Tensor,
        mask1: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run every layer.

        Args:
            points0, points1: (K, 2), centred on the image, longest half side = 1.
            descriptors0, descriptors1: (K, D).
            mask0, mask1: (K,), 0 for a keypoint and a large negative number for padding.

        Returns:
            similarity (K, K); logits (K,) of each keypoint having a partner, for both sets.
        """
        angles0, angles1 = self.posenc(points0), self.posenc(points1)
        x0, x1 = self.input_proj(descriptors0), self.input_proj(descriptors1)
        for layer in self.transformers:
            x0, x1 = layer((x0, x1), (angles0, angles1), (mask0, mask1))
        scale = self.width**-0.25
        final = self.assignment.final_proj
        similarity = (final(x0) * scale) @ (final(x1) * scale).T
        matchability = self.assignment.matchability
        return similarity, matchability(x0)[:, 0], matchability(x1)[:, 0]


class LightGlueMatcher(nn.Module):
    """The whole matcher engine; everything but the transformer runs in float32."""

    def __init__(self, network: LightGlueNetwork, config: BuildConfig) -> None:
        super().__init__()
        self.network = network
        self.max_keypoints = config.max_keypoints
        self.threshold = match_threshold(config)

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
        """Match two sets (see ``runtimes.protocol``): matches0 int32 (K,), scores0 float32 (K,)."""
        kind = self.network.assignment.final_proj.weight.dtype
        valid0 = valid_rows(count0, self.max_keypoints)
        valid1 = valid_rows(count1, self.max_keypoints)
        masks = [torch.where(valid, 0.0, MASKED) for valid in (valid0, valid1)]
        similarity, z0, z1 = (
            value.float()
            for value in self.network(
                _centred(keypoints0, size0),
                descriptors0.to(kind),
                masks[0].to(kind),
                _centred(keypoints1, size1),
                descriptors1.to(kind),
                masks[1].to(kind),
            )
        )
        rows = torch.softmax(similarity + masks[1], dim=1) * torch.sigmoid(z0)[:, None]
        columns = torch.softmax(similarity + masks[0][:, None], dim=0) * torch.sigmoid(z1)
        return mutual_best(rows * columns, valid0, valid1, self.threshold)


def _centred(keypoints: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return (keypoints - size / 2) / (size.max() / 2)


def _untangled(value: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Reorder the rows of Wqkv.

    Published, q, k and v alternate channel by channel, and channels 2i and 2i + 1 of q and k turn
    together. Here the three come one after another, and the channels that turn together lie half a
    head apart. The same order in q and k leaves their products as they were.
    """
    size = shape.width // shape.heads
    if value.shape[0] != 3 * shape.width:
        return value  # of another network: loading it says so
    parts = value.reshape(shape.heads, size, 3, *value.shape[1:]).transpose(1, 2)
    halves = torch.cat([parts[:, :, 0::2], parts[:, :, 1::2]], dim=2)
    ordered = torch.cat([halves[:, :2], parts[:, 2:]], dim=1).transpose(0, 1)
    return ordered.reshape(value.shape).contiguous()


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
            if not key.startswith(f"log_assignment.{shape.layers - 1}."):
                continue  # for early stopping too
            key = key.replace(f"log_assignment.{shape.layers - 1}.", "assignment.")
        for block in ("self_attn", "cross_attn"):  # older files name the blocks first
            if key.startswith(f"{block}."):
                _, index, rest = key.split(".", 2)
                key = f"transformers.{index}.{block}.{rest}"
        kept[key] = _untangled(value, shape) if "Wqkv" in key else value
    network = LightGlueNetwork(shape)
    load_state(network, kept, model)
    return network.eval()


def load_lighterglue_network(model: Model) -> LightGlueNetwork:
    """Build LighterGlue's network in eval mode. Raises as ``load_lighterglue``."""
    return _load(model, LIGHTERGLUE, "matcher.")


def load_lighterglue(model: Model, config: BuildConfig) -> LightGlueMatcher:
    """Build the LighterGlue matcher in eval mode.

    Raises:
        ModelNotFoundError, ModelIntegrityError, ModelMismatchError, InvalidParameterError.
    """
    return LightGlueMatcher(load_lighterglue_network(model), config).eval()


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
        },
    )


LIGHTERGLUE_EXPORT = _export(load_lighterglue_network, LIGHTERGLUE)
