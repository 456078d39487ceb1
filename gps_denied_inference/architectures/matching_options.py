"""Options of matchers, read from ``BuildConfig.options`` and checked. No torch, no onnx."""

from __future__ import annotations

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.runtimes.protocol import BuildConfig

MASKED = -10000.0
"""Added to the logits of padding: nothing after a softmax, and still a float16."""


def match_threshold(config: BuildConfig) -> float:
    """``match_threshold``: LightGlue pairs must be more probable than this (default 0.1).

    Raises:
        InvalidParameterError: not a number in 0..1.
    """
    return _share(config, "match_threshold", 0.1)


def min_cosine(config: BuildConfig) -> float:
    """``min_cosine``: nearest neighbours must be more alike than this (default 0.82, XFeat's own).

    Raises:
        InvalidParameterError: not a number in 0..1.
    """
    return _share(config, "min_cosine", 0.82)


def ratio(config: BuildConfig) -> float:
    """``ratio``: nearest distance over second nearest, both ways, is at most this (1 = no test).

    Raises:
        InvalidParameterError: not a number in 0..1.
    """
    return _share(config, "ratio", 1.0)


def _share(config: BuildConfig, name: str, default: float) -> float:
    text = config.options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidParameterError(name, text, "a number in 0..1") from error
    if not 0.0 <= value <= 1.0:
        raise InvalidParameterError(name, text, "a number in 0..1")
    return value
