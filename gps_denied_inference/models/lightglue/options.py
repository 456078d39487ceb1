"""Options of matchers, read from ``BuildConfig.options`` and checked. No torch, no onnx."""

from __future__ import annotations

import math

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.runtimes.specs import BuildConfig

MASKED = -10000.0
"""Added to the logits of padding: nothing after a softmax, and still a float16."""

UNMATCHABLE = math.log(0.05 / 0.95)
"""Logit of a keypoint having a partner below which LighterGlue's authors leave it out."""


def pruning(config: BuildConfig, *, can: bool) -> bool:
    """``pruning``: leave keypoints out of LightGlue's later layers: ``auto``, ``on`` or ``off``.

    ``auto`` (default) prunes on a CPU, where it more than halves the time, and not on a GPU, where
    it takes the static shapes that CUDA graphs and TensorRT need; the authors' code also prunes up
    to 1536 keypoints only on a CPU. Several pairs at a time are not pruned: each would keep another
    number of keypoints.

    Args:
        config: the engine's.
        can: whether the network says which keypoints to leave out.

    Raises:
        InvalidParameterError: another value, or ``on`` where it cannot be.
    """
    text = config.options.get("pruning", "auto")
    if text not in ("auto", "on", "off"):
        raise InvalidParameterError("pruning", text, "'auto', 'on' or 'off'")
    free = config.device == "cpu" and config.batch == 1
    if text == "on" and not (can and free):
        why = (
            "on a GPU shapes are static, and for several pairs at a time"
            if can
            else "this network was not trained for it"
        )
        raise InvalidParameterError("pruning", text, f"'auto' or 'off': {why}")
    return can and free and text != "off"


def match_threshold(config: BuildConfig) -> float:
    """``match_threshold``: LightGlue pairs must be more probable than this (default 0.1).

    Raises:
        InvalidParameterError: not a number in 0..1.
    """
    text = config.options.get("match_threshold", "0.1")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise InvalidParameterError("match_threshold", text, "a number in 0..1")
    return value
