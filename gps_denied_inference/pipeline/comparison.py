"""A frame beside an earlier image: pairs of features, and what verifies them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from gps_denied_inference.pipeline.geometry import GeometricModel
from gps_denied_inference.pipeline.matcher import Matches


class Comparison:
    """Pairs of a frame (query) with an earlier image (reference), made when first asked for.

    Args:
        pair: gives the pairs.
        verify: gives the model that verifies them, or None.
    """

    def __init__(
        self, pair: Callable[[], Matches], verify: Callable[[Matches], GeometricModel | None]
    ) -> None:
        self._pair, self._verify = pair, verify

    @classmethod
    def of(cls, matches: Matches, geometry: GeometricModel | None) -> Comparison:
        """Return one that has been made."""
        return cls(lambda: matches, lambda _: geometry)

    @cached_property
    def matches(self) -> Matches:
        """The pairs."""
        return self._pair()

    @cached_property
    def geometry(self) -> GeometricModel | None:
        """The model that verifies them; None where none was asked for or found."""
        return self._verify(self.matches)
