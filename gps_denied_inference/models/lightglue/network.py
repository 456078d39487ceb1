"""LightGlue's transformer (Lindenberger et al., ICCV 2023), as a torch module.

Written from the paper and from the shapes of the published checkpoints. The parameters are theirs
after ``models.lightglue_weights`` has multiplied those that follow one another without
anything between: the scale of the logits into the queries and keys, the output projection of an
attention into the feed-forward, and of a single head the projection of its values as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from gps_denied_inference.models.lightglue.options import UNMATCHABLE


@dataclass(frozen=True)
class Shape:
    """Sizes of one LightGlue: descriptor length in, width, attention heads, layers.

    ``prunes``: whether matchability alone says which keypoints its layers leave out, as for
    LighterGlue. Networks trained for an early stop too also ask how sure they are of that.
    """

    descriptor_dim: int
    width: int
    heads: int
    layers: int
    prunes: bool = False


Pair = tuple[torch.Tensor, torch.Tensor]
"""One value of each of the two images."""


def _rotate(
    first: torch.Tensor, second: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
) -> torch.Tensor:
    """Turn channel i of the first half with channel i of the second; (heads, K, half) each."""
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Attention over (heads, K, C), q scaled already; mask (K,) is added to the keys' logits."""
    return torch.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


class _FeedForward(nn.Module):
    """Updates states from themselves and from what was attended to, not yet projected.

    Both go into one linear layer, each through its own columns of it: two products, of which the
    second adds to the first, are that layer without joining its inputs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, 2 * width)
        self.context = nn.Parameter(torch.zeros(width, 2 * width))
        self.norm = nn.LayerNorm(2 * width)
        self.activation = nn.GELU()
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Update x (K, C) from the context (K, C)."""
        hidden = torch.addmm(self.own(x), context, self.context)
        updated: torch.Tensor = x + self.out(self.activation(self.norm(hidden)))
        return updated


class _Attention(nn.Module):
    """What both attentions share. Only K is unknown to the exporter.

    A single head attends to the states themselves: the sum of projected values is the projection
    of their sum, and that projection is part of the feed-forward's weights.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.values = nn.Identity() if heads == 1 else nn.Linear(width, width)
        self.feed_forward = _FeedForward(width)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Return (heads, K, C/heads) of (K, C)."""
        if self.heads == 1:
            return x.unsqueeze(0)  # costs nothing; a transpose is a copy to some runtimes
        return x.reshape(-1, self.heads, x.shape[1] // self.heads).transpose(0, 1)

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """Return (K, C) of (heads, K, C/heads)."""
        if self.heads == 1:
            return x.squeeze(0)
        return x.transpose(0, 1).reshape(-1, self.width)


class SelfAttention(_Attention):
    """Keypoints of one image exchange what they know, aware of where they lie.

    ``queries_keys`` gives, one after another and of all heads, the first halves of the queries,
    their second halves, and both of the keys.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.queries_keys = nn.Linear(width, 2 * width)

    def forward(
        self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Update x (K, C)."""
        parts = self.queries_keys(x).split(self.width // 2, dim=1)
        q1, q2, k1, k2 = (self.split(part) for part in parts)
        q, k = _rotate(q1, q2, cosine, sine), _rotate(k1, k2, cosine, sine)
        context = self.join(_attend(q, k, self.split(self.values(x)), mask))
        updated: torch.Tensor = self.feed_forward(x, context)
        return updated


class CrossAttention(_Attention):
    """Keypoints of two images exchange what they know; queries and keys share one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.to_qk = nn.Linear(width, width)

    def forward(
        self, x0: torch.Tensor, x1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Update x0 and x1, each (K, C)."""
        qk0, qk1 = self.split(self.to_qk(x0)), self.split(self.to_qk(x1))
        v0, v1 = self.split(self.values(x0)), self.split(self.values(x1))
        context0 = self.join(_attend(qk0, qk1, v1, mask1))
        context1 = self.join(_attend(qk1, qk0, v0, mask0))
        return self.feed_forward(x0, context0), self.feed_forward(x1, context1)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)

    def forward(self, x: Pair, angles: tuple[Pair, Pair], masks: Pair) -> Pair:
        x0 = self.self_attn(x[0], *angles[0], masks[0])
        x1 = self.self_attn(x[1], *angles[1], masks[1])
        updated: Pair = self.cross_attn(x0, x1, *masks)
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
        self.matchability = nn.ModuleList(
            [nn.Linear(shape.width, 1) for _ in range(shape.layers - 1 if shape.prunes else 0)]
        )
        self.assignment = _Assignment(shape.width)
        self.width = shape.width

    def assign(self, x0: torch.Tensor, x1: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what :meth:`forward` returns first, from the last layer's states."""
        scale = self.width**-0.25
        final = self.assignment.final_proj
        similarity = (final(x0) * scale) @ (final(x1) * scale).T
        matchability = self.assignment.matchability
        return similarity, matchability(x0)[:, 0], matchability(x1)[:, 0]

    def forward(
        self,
        points0: torch.Tensor,
        descriptors0: torch.Tensor,
        mask0: torch.Tensor,
        points1: torch.Tensor,
        descriptors1: torch.Tensor,
        mask1: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Run every layer on every keypoint.

        Args:
            points0, points1: (K, 2), centred on the image, longest half side = 1.
            descriptors0, descriptors1: (K, D).
            mask0, mask1: (K,), 0 for a keypoint and a large negative number for padding.

        Returns:
            similarity (K, K); logits (K,) of each keypoint having a partner, for both sets; and of
            a network that prunes, in the order of :func:`inner_values`, where its graph is cut.
        """
        angles0, angles1 = self.posenc(points0), self.posenc(points1)
        x0, x1 = self.input_proj(descriptors0), self.input_proj(descriptors1)
        inner = [*angles0, *angles1] if self.matchability else []
        for i, layer in enumerate(self.transformers):
            x0, x1 = layer((x0, x1), (angles0, angles1), (mask0, mask1))
            if i < len(self.matchability):
                logit = self.matchability[i]
                inner += [x0, x1, logit(x0)[:, 0], logit(x1)[:, 0]]
        return (*self.assign(x0, x1), *inner)

    def pruned(self, points: Pair, descriptors: Pair) -> tuple[tuple[torch.Tensor, ...], Pair]:
        """Run the layers on what may still find a partner; sets without padding.

        Returns:
            What :meth:`assign` returns of those keypoints, and which they are, int64.
        """
        x = [self.input_proj(d) for d in descriptors]
        angles = [self.posenc(p) for p in points]
        rows = [torch.arange(len(p), device=p.device) for p in points]
        masks = (x[0].new_zeros(1), x[0].new_zeros(1))
        for i, layer in enumerate(self.transformers):
            x = list(layer((x[0], x[1]), (angles[0], angles[1]), masks))
            if i == len(self.matchability):
                break
            for k in (0, 1):
                logits = self.matchability[i](x[k])[:, 0]
                # Never all of them: an empty set has no softmax.
                keep = (logits > UNMATCHABLE) | (logits >= logits.max())
                x[k], rows[k] = x[k][keep], rows[k][keep]
                angles[k] = (angles[k][0][keep], angles[k][1][keep])
        return self.assign(x[0], x[1]), (rows[0], rows[1])


def inner_values(shape: Shape) -> tuple[str, ...]:
    """Names of the values at which a network's graph is cut to prune between its layers."""
    if not shape.prunes:
        return ()
    angles = tuple(f"{part}{k}" for k in (0, 1) for part in ("cosine", "sine"))
    return angles + tuple(
        f"{part}{k}_{i}"
        for i in range(shape.layers - 1)
        for part in ("state", "prospect")
        for k in (0, 1)
    )
