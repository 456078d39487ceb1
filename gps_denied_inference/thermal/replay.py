"""Recording thermal states to a file of JSON lines, and playing them back as a source.

The first line describes the file, every other line is one state with its time in seconds since the
first one::

    {"format": "gps_denied_inference.thermal", "version": 1, "source": "nvml"}
    {"t": 0.0, "state": {"level": "NOMINAL", ...}}
    {"t": 1.0, "state": {...}}
"""

from __future__ import annotations

import bisect
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from gps_denied_inference.errors import InvalidParameterError, StorageError, ThermalReadError
from gps_denied_inference.storage.files import MAX_RECORDING_BYTES, read_regular
from gps_denied_inference.thermal.state import ThermalState

FORMAT = "gps_denied_inference.thermal"
VERSION = 1


class ThermalRecorder:
    """Writes states to a recording; each line is flushed, so that a power cut costs one at most.

    Args:
        path: the file; an existing one is replaced.
        source: name of the source that is recorded.
        clock: s, monotonic; for tests.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(
        self, path: Path, source: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._start: float | None = None
        self.count = 0
        try:
            self._file = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise self._storage(error) from error
        self._line({"format": FORMAT, "version": VERSION, "source": source})

    def write(self, state: ThermalState) -> None:
        """Append one state, stamped with the time since the first one.

        Raises:
            StorageError: the disk is full or gone.
        """
        now = self._clock()
        if self._start is None:
            self._start = now
        self._line({"t": round(now - self._start, 4), "state": state.to_dict()})
        self.count += 1

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._file.close()

    def __enter__(self) -> ThermalRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _line(self, data: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(data, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._storage(error) from error

    def _storage(self, error: OSError) -> StorageError:
        return StorageError(
            f"thermal recording {self._path} cannot be written: {error.strerror or error}; "
            "choose another folder or free space"
        )


def load_recording(path: Path) -> list[tuple[float, ThermalState]]:
    """Return the recording as (s since its start, state), in order of time.

    A last line that was cut off is left out; any other fault refuses the whole file.

    Raises:
        ThermalReadError: the file cannot be read, is none of ours or holds no state.
    """
    path = Path(path)
    try:
        lines = read_regular(path, MAX_RECORDING_BYTES).decode("utf-8").splitlines()
    except (StorageError, UnicodeDecodeError) as error:
        raise ThermalReadError(f"thermal recording {path} cannot be read: {error}") from error
    header = _parse(lines[0]) if lines else None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ThermalReadError(
            f"{path} is no thermal recording; record one with: gdi thermal --record FILE"
        )
    if header.get("version") != VERSION:
        raise ThermalReadError(
            f"{path} is a thermal recording of version {header.get('version')!r}, "
            f"this program reads version {VERSION}"
        )
    states: list[tuple[float, ThermalState]] = []
    for number, line in enumerate(lines[1:], start=2):
        entry = _parse(line)
        if entry is None and number == len(lines):
            break
        t = entry.get("t") if isinstance(entry, dict) else None
        if not isinstance(t, (int, float)) or isinstance(t, bool) or not math.isfinite(t):
            raise ThermalReadError(f"{path} line {number} is no recorded state")
        if states and t < states[-1][0]:
            raise ThermalReadError(f"{path} line {number} goes back in time")
        try:
            states.append((float(t), ThermalState.from_dict(entry.get("state", {}))))
        except ThermalReadError as error:
            raise ThermalReadError(f"{path} line {number}: {error}") from error
    if not states:
        raise ThermalReadError(f"{path} holds no state")
    return states


class ReplaySource:
    """Plays a recording back in its own time, from the first read on.

    Args:
        path: the recording.
        speed: 1 = as it was, 2 = twice as fast.
        loop: start again at the end; else the state after the end is UNKNOWN.
        clock: s, monotonic; for tests.

    Raises:
        ThermalReadError: see :func:`load_recording`.
        InvalidParameterError: a speed that is not above 0.
    """

    name = "replay"

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        loop: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(speed) and speed > 0.0):
            raise InvalidParameterError("speed", speed, "above 0")
        self._states = load_recording(path)
        self._times = [t for t, _ in self._states]
        # A state holds until the next one; the last one as long as the one before it did.
        last_step = self._times[-1] - self._times[-2] if len(self._times) > 1 else 1.0
        self.duration = self._times[-1] - self._times[0] + max(last_step, 1e-3)
        self._path = Path(path)
        self._speed = speed
        self._loop = loop
        self._clock = clock
        self._start: float | None = None
        self.ended = False
        """A read came after the end."""

    def read(self) -> ThermalState:
        """Return the state that was recorded for this moment; UNKNOWN after the end."""
        now = self._clock()
        if self._start is None:
            self._start = now
        t = (now - self._start) * self._speed
        if t >= self.duration:
            if not self._loop:
                self.ended = True
                return ThermalState.unknown(
                    f"the recording {self._path.name} has ended after {self.duration:g} s",
                    source=self.name,
                )
            t %= self.duration
        index = bisect.bisect_right(self._times, self._times[0] + t) - 1
        state = self._states[max(index, 0)][1]
        return replace(state, source=self.name, stamp_ns=time.time_ns())

    def close(self) -> None:
        """Do nothing: the recording is in memory."""


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
