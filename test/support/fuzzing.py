"""How long fuzzers go on: a quick round in the suite, minutes or a number by ``make fuzz``.

``GDI_FUZZ_MINUTES`` is for how long each fuzzer goes on, ``GDI_FUZZ_INPUTS`` after how many inputs
it ends; neither: one quick round.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

SECONDS = 60.0 * float(os.environ.get("GDI_FUZZ_MINUTES") or 0)
INPUTS = int(float(os.environ.get("GDI_FUZZ_INPUTS") or 0))
ROUND = 2_000
"""Examples of one round of a long run; Hypothesis keeps what it knows of each in memory."""
LONG = SECONDS > 0.0 or INPUTS > 0


class Fuzzer:
    """Rounds of examples until there were enough inputs, and the line that says how many.

    Args:
        name: in the line that is printed.

    Attributes:
        count: inputs so far; whoever tries one counts it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def run(self, play: Callable[[int], object], examples: int, per_example: int = 1) -> None:
        """Play rounds, and print ``NAME: N inputs in S s (R/s)`` whatever ends them.

        Args:
            play: tries as many examples as it is told.
            examples: of the only round where no long run is asked for.
            per_example: inputs in an example, at most.
        """
        begin = time.monotonic()
        try:
            if not LONG:
                play(examples)
                return
            while self.count < INPUTS or time.monotonic() - begin < SECONDS:
                left = max(1, -((self.count - INPUTS) // per_example)) if not SECONDS else ROUND
                play(min(ROUND, left))
        finally:
            took = time.monotonic() - begin
            rate = self.count / took if took > 0.0 else 0.0
            print(f"{self._name}: {self.count} inputs in {took:.0f} s ({rate:.0f}/s)", flush=True)
