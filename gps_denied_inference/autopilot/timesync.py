"""The autopilot's clock, counted from its start, against this computer's."""

from __future__ import annotations

from collections import deque

JUMP_NS = 100_000_000
"""An offset that differs by more than this from the last is a clock that was set, or a restart."""
_WINDOW = 16


class ClockMap:
    """Maps times since the autopilot's start to ROS time.

    Exchanges of TIMESYNC give the offset to within half their round trip; the newest exchanges
    with the shortest way count. Where the autopilot does not answer them, the packets' own times
    do, late by their way here.

    Attributes:
        jumps: times that the autopilot's clock was found set anew.
    """

    def __init__(self) -> None:
        self.jumps = 0
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=_WINDOW)  # (round trip, offset) ns
        self._one_way: deque[int] = deque(maxlen=_WINDOW)

    @property
    def is_synchronised(self) -> bool:
        """True while exchanges of TIMESYNC give the offset."""
        return bool(self._exchanges)

    @property
    def offset_ns(self) -> int | None:
        """ROS time less the autopilot's time, ns; None before anything came."""
        if self._exchanges:
            return min(self._exchanges)[1]
        return min(self._one_way) if self._one_way else None

    @property
    def uncertainty(self) -> float | None:
        """s, half the shortest round trip; None while there was none."""
        return 0.5e-9 * min(self._exchanges)[0] if self._exchanges else None

    def exchanged(self, sent_ns: int, remote_ns: int, received_ns: int) -> None:
        """Take an answer to a TIMESYNC of ours.

        Args:
            sent_ns, received_ns: ROS time.
            remote_ns: the autopilot's time when it answered.
        """
        round_trip = received_ns - sent_ns
        if round_trip < 0:
            return  # this computer's clock was set in between
        offset = sent_ns + round_trip // 2 - remote_ns
        known = self.offset_ns if self._exchanges else None
        if known is not None and abs(offset - known) > JUMP_NS + round_trip:
            self.forget()
            self.jumps += 1
        self._exchanges.append((round_trip, offset))

    def arrived(self, remote_ns: int, received_ns: int) -> None:
        """Take a packet that carries the autopilot's time."""
        offset = received_ns - remote_ns
        if self._one_way and offset - min(self._one_way) > 10 * JUMP_NS:
            self.forget()  # its clock went back, or ours ahead
            self.jumps += 1
        elif self._one_way and min(self._one_way) - offset > JUMP_NS:
            self.forget()
            self.jumps += 1
        self._one_way.append(offset)

    def forget(self) -> None:
        """Begin anew, after a restart."""
        self._exchanges.clear()
        self._one_way.clear()

    def to_ros(self, remote_ns: int) -> int | None:
        """Return a time of the autopilot as ROS time, ns; None before anything came."""
        offset = self.offset_ns
        return None if offset is None else remote_ns + offset

    def to_autopilot(self, ros_ns: int) -> int | None:
        """Return a ROS time as the autopilot's, ns, not negative; None before anything came."""
        offset = self.offset_ns
        return None if offset is None else max(0, ros_ns - offset)
