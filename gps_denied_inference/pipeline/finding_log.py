"""What was found of a whole flight: each cause once, with how long it held."""

from __future__ import annotations

import re

from gps_denied_inference.pipeline.task_health import Finding


class FindingLog:
    """Takes a finding with every frame, or status, and says at the end what there was.

    Args:
        unit: what is counted, such as ``"frames"``.
    """

    def __init__(self, unit: str = "frames") -> None:
        self._unit = unit
        self._of = 0
        self._held: dict[str, tuple[str, int]] = {}

    def note(self, finding: Finding | None) -> None:
        """Count one frame, with what was found of it; None = nothing."""
        self._of += 1
        if finding is not None:
            self._hold(finding.cause, finding.line)

    def note_line(self, line: str) -> None:
        """Count one status with its line; empty = nothing was found. Numbers make no difference."""
        self._of += 1
        if line:
            self._hold(re.sub(r"\d+([.,]\d+)*", "", line), line)

    def _hold(self, cause: str, line: str) -> None:
        count = self._held[cause][1] if cause in self._held else 0
        self._held[cause] = (line, count + 1)

    @property
    def lines(self) -> list[str]:
        """One line for each cause, in the order in which they began; empty = all was well."""
        return [
            f"{line} (so in {count} of {self._of} {self._unit})"
            for line, count in self._held.values()
        ]
