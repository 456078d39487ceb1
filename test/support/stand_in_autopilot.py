"""A stand-in for an autopilot: speaks MAVLink over UDP on loopback, and misbehaves when told to.

It is no autopilot: it flies nothing and fuses nothing. It says what PX4 or ArduPilot would say of
themselves, answers TIMESYNC, and keeps every message that reaches it.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

os.environ["MAVLINK20"] = "1"

from pymavlink.dialects.v20 import ardupilotmega as mavlink
from pymavlink.quaternion import QuaternionBase

PX4, ARDUPILOT = mavlink.MAV_AUTOPILOT_PX4, mavlink.MAV_AUTOPILOT_ARDUPILOTMEGA
GOOD_ESTIMATOR = 1 | 2 | 4 | 8 | 32
"""Attitude, velocities, relative position, height; no absolute horizontal position."""
ABSOLUTE = 16


@dataclass
class Faults:
    """What happens to packets, in both directions; 0 = nothing.

    Attributes:
        drop, corrupt, reorder: shares, 0..1.
        delay: s, of every packet.
    """

    drop: float = 0.0
    corrupt: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0


@dataclass
class Said:
    """What the stand-in says of itself."""

    autopilot: int = PX4
    estimator_flags: int = GOOD_ESTIMATOR
    gps_fix_type: int = 0
    quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    latitude: float = 47.0
    longitude: float = 8.0
    altitude: float = 500.0
    height: float = 100.0
    position_sigma: float = 25.0
    """m; only PX4 says it."""
    faults: Faults = field(default_factory=Faults)
    silent: bool = False


class StandInAutopilot:
    """One stand-in, sending to ``port`` on loopback.

    Args:
        port: where the link listens.
        seed: of the faults.

    Attributes:
        said: may be changed at any time.
        got: messages by type, with the monotonic time of arrival.
    """

    def __init__(self, port: int, seed: int = 0) -> None:
        self.said = Said()
        self.got: dict[str, list[tuple[float, Any]]] = defaultdict(list)
        self._random = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.01)
        self._peer = ("127.0.0.1", port)
        self._later: deque[tuple[float, bytes]] = deque()
        self._held: bytes | None = None
        self._boot = time.monotonic()
        self._clock_shift = 0.0
        self._lock = threading.Lock()
        self._mav = self._new_parser()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _new_parser(self) -> Any:
        mav = mavlink.MAVLink(None, srcSystem=1, srcComponent=1)
        mav.robust_parsing = True
        return mav

    @property
    def boot_ns(self) -> int:
        """ns since its start, on its own clock."""
        return int((time.monotonic() - self._boot + self._clock_shift) * 1e9)

    def restart(self) -> None:
        """Begin anew: clock at zero, sequence numbers too."""
        with self._lock:
            self._boot, self._clock_shift = time.monotonic(), 0.0
            self._mav = self._new_parser()

    def jump_clock(self, seconds: float) -> None:
        """Set its clock forwards or back."""
        self._clock_shift += seconds

    def of(self, kind: str) -> list[Any]:
        """Return the messages of a type that came, oldest first."""
        return [message for _, message in list(self.got[kind])]

    def wait_for(self, kind: str, count: int = 1, limit: float = 10.0) -> list[Any]:
        """Wait until so many messages of a type have come; return them all."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if len(self.got[kind]) >= count:
                return self.of(kind)
            time.sleep(0.005)
        raise AssertionError(
            f"{len(self.got[kind])} of {count} {kind} in {limit} s: {list(self.got)}"
        )

    def __enter__(self) -> StandInAutopilot:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        due = {"slow": 0.0, "fast": 0.0}
        while not self._end.is_set():
            now = time.monotonic()
            if not self.said.silent:
                if now >= due["slow"]:
                    due["slow"] = now + 0.2
                    self._say_slow()
                if now >= due["fast"]:
                    due["fast"] = now + 0.02
                    self._say_fast()
            while self._later and self._later[0][0] <= now:
                self._socket.sendto(self._later.popleft()[1], self._peer)
            self._listen()

    def _say_slow(self) -> None:
        said, mode = self.said, 128
        self._send("heartbeat", 2, said.autopilot, mode, 0, 4)
        h_acc = 1500 if said.gps_fix_type >= 3 else 0
        self._send("gps_raw_int", self.boot_ns // 1000, said.gps_fix_type, 0, 0, 0, 0, 0, 0, 0, 0,
                   0, h_acc, 0, 0, 0)  # fmt: skip
        if said.autopilot == ARDUPILOT:
            self._send("ekf_status_report", said.estimator_flags, 0, 0, 0, 0, 0)
        else:
            self._send("estimator_status", self.boot_ns // 1000, said.estimator_flags, 0, 0, 0, 0,
                       0, 0, said.position_sigma, 1.0)  # fmt: skip

    def _say_fast(self) -> None:
        said, boot_ms = self.said, self.boot_ns // 1_000_000
        if said.autopilot == ARDUPILOT:
            self._send("attitude", boot_ms, *QuaternionBase(said.quaternion).euler, 0, 0, 0)
        else:
            self._send("attitude_quaternion", boot_ms, *said.quaternion, 0, 0, 0)
        self._send(
            "global_position_int", boot_ms, round(said.latitude * 1e7),
            round(said.longitude * 1e7), round(said.altitude * 1e3), round(said.height * 1e3),
            0, 0, 0, 0,
        )  # fmt: skip

    def _send(self, name: str, *values: Any) -> None:
        with self._lock:
            message = getattr(self._mav, f"{name}_encode")(*values)
            data = bytearray(message.pack(self._mav))
            self._mav.seq = (self._mav.seq + 1) % 256
        faults, roll = self.said.faults, self._random.random
        if roll() < faults.drop:
            return
        if roll() < faults.corrupt:
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        packet = bytes(data)
        if self._held is not None:
            self._put(packet)
            packet, self._held = self._held, None
        elif roll() < faults.reorder:
            self._held = packet
            return
        self._put(packet)

    def _put(self, packet: bytes) -> None:
        self._later.append((time.monotonic() + self.said.faults.delay, packet))

    def _listen(self) -> None:
        try:
            data, self._peer = self._socket.recvfrom(4096)
        except (TimeoutError, ConnectionError):
            return
        for message in self._mav.parse_buffer(data) or ():
            kind = message.get_type()
            if kind == "TIMESYNC" and message.tc1 == 0 and not self.said.silent:
                self._send("timesync", self.boot_ns, message.ts1)
            self.got[kind].append((time.monotonic(), message))
