"""The words that say how an image is decoded."""

from __future__ import annotations

from typing import Literal

Color = Literal["mono", "rgb"]
DepthScaling = Literal["percentile", "minmax", "full"]
"""How 16 bits become 8, see :data:`~.raw.DEPTH_SCALINGS`."""
