"""What ALIKED's torch module and its graph have in common. No torch, no onnx."""

from __future__ import annotations

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.runtimes.specs import BuildConfig

RADIUS = 2
"""px, of non-maximum suppression and of the neighbourhood that a keypoint is refined in."""

TEMPERATURE = 0.1
"""Of the soft-argmax, as published."""

MULTIPLE = 32
"""px; the network halves the image five times."""


def check_config(config: BuildConfig) -> None:
    """Refuse what ALIKED cannot do.

    Raises:
        InvalidParameterError: half precision, or a side that is no multiple of 32 px.
    """
    if config.precision != "fp32":
        raise InvalidParameterError(
            "precision",
            config.precision,
            "'fp32' for ALIKED: it samples at positions that float16 cannot hold to a tenth of a "
            "pixel",
        )
    for name in ("height", "width"):
        if getattr(config, name) % MULTIPLE:
            raise InvalidParameterError(
                name, getattr(config, name), f"a multiple of {MULTIPLE} px for ALIKED"
            )
