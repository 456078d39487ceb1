"""Frames missing between two that arrived, found by the sender's own numbers."""

from __future__ import annotations

FASTEST = 10_000.0
"""Hz; a step in the numbers that would need a faster camera is another sender's."""
QUIET = 1.0
"""s without a judgement after the numbers went backwards."""
UNSUPPORTED = 2**64 - 1
"""What a middleware gives that numbers nothing."""


class SequenceWatch:
    """Watches the numbers that the middleware gives one sender's messages, 1, 2, 3, ...

    A sender that starts again begins at 1 again, and two senders on one topic interleave: numbers
    that go backwards say nothing about losses, and neither do those just after.
    """

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._quiet_until = float("-inf")
        self.is_numbered = True
        """False once a message came without a number."""

    def missing(self, number: int, now: float) -> int:
        """Return how many messages were sent between the one before and this one.

        Args:
            number: of the message that arrived.
            now: monotonic s.
        """
        self.is_numbered = number != UNSUPPORTED
        if not self.is_numbered:
            return 0
        last, self._last = self._last, (number, now)
        if last is None:
            return 0
        if number <= last[0]:
            self._quiet_until = now + QUIET
            return 0
        gap = number - last[0] - 1
        possible = 10 + (now - last[1]) * FASTEST
        return gap if gap <= possible and now >= self._quiet_until else 0
