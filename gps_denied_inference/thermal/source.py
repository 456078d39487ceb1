"""What every thermal source keeps, and the source that knows nothing."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from gps_denied_inference.thermal.state import ThermalState


@runtime_checkable
class ThermalSource(Protocol):
    """One way to read the computer's temperature.

    ``read`` may block and may raise: :class:`gps_denied_inference.thermal.monitor.ThermalMonitor`
    is what makes it safe to ask from elsewhere. A source is used by one thread at a time.
    """

    @property
    def name(self) -> str:
        """Return the source's name as in ``ThermalState.source``."""
        ...

    def read(self) -> ThermalState:
        """Take one sample.

        Returns:
            The state; level UNKNOWN with its reason where nothing valid could be read.

        Raises:
            ThermalReadError: the source itself failed.
        """
        ...

    def close(self) -> None:
        """Give everything back. Closing twice is fine."""
        ...


class NoSource:
    """Stands where no source exists: always UNKNOWN, with the reason."""

    name = "none"

    def __init__(self, reason: str = "no thermal source") -> None:
        self._reason = reason

    def read(self) -> ThermalState:
        """Return the safe state with the reason given at construction."""
        return ThermalState.unknown(self._reason)

    def close(self) -> None:
        """Do nothing."""
