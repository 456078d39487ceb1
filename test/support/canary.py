"""Tests that tell, without failing, that upstream has mended what this package works around."""

from __future__ import annotations

import warnings

from gps_denied_inference.node.rclpy_compat import REACHES


class MendedUpstreamWarning(UserWarning):
    """A workaround may go for the version that is installed here."""


def canary(reach: str, mended: bool) -> None:
    """Warn where ``mended``: rclpy does by itself what ``REACHES[reach]`` is needed for."""
    found = REACHES[reach]
    if mended:
        where = ", ".join(found.upstream) or "no upstream issue is known"
        warnings.warn(
            f"this rclpy needs no workaround so that {reach} ({where})",
            MendedUpstreamWarning,
            stacklevel=2,
        )
