"""The link: one connection, the policy over fixes, the autopilot's state and clock.

Threads: ``run`` reads the port in a thread of its own; ``offer_fix``, ``offer_odometry`` and
``snapshot`` may be called from any other. One lock guards policy, telemetry and clock.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gps_denied_inference.autopilot import outgoing
from gps_denied_inference.autopilot.connection import Connection
from gps_denied_inference.autopilot.fix import AskedKind, AutopilotState, Fix
from gps_denied_inference.autopilot.geoid import Geoid
from gps_denied_inference.autopilot.incoming import Telemetry
from gps_denied_inference.autopilot.policy import FixPolicy, LinkState, PolicyLimits, Verdict
from gps_denied_inference.autopilot.timesync import ClockMap
from gps_denied_inference.errors import InvalidParameterError

HEARTBEAT_PERIOD = 1.0
TIMESYNC_PERIOD = 0.25
UNHEALTHY_PERIOD = 1.0
"""s between notices of a lost position."""
_LATENCIES = 512


@dataclass(frozen=True)
class LinkStatus:
    """What an operator sees.

    Attributes:
        state: of the policy.
        reason: why the newest fix was not sent; empty where it was.
        counts: fixes by what became of them.
        autopilot: its newest state.
        heard: s since its last packet; infinite = never.
        latency_p50, latency_p95: s from exposure to packet, of the newest 512; NaN = none yet.
        resets, clock_jumps, restarts: since the start.
        time_offset, time_uncertainty: s; NaN = not known.
        received, lost, malformed, sent, send_failures: packets.
        odometry_sent, odometry_refused: messages.
    """

    state: LinkState
    reason: str
    counts: dict[str, int]
    autopilot: AutopilotState
    heard: float
    latency_p50: float
    latency_p95: float
    resets: int
    clock_jumps: int
    restarts: int
    time_offset: float
    time_uncertainty: float
    received: int
    lost: int
    malformed: int
    sent: int
    send_failures: int
    odometry_sent: int
    odometry_refused: int


class AutopilotLink:
    """Sends fixes to one autopilot, and keeps what it says.

    Args:
        connection: open.
        limits: of the policy.
        kind: ``"auto"`` takes what the heartbeat says.
        source_id: of PX4's auxiliary global position, as ``EKF2_AGPn_ID``.
        geoid: for heights above mean sea level; None leaves them out.
        clock: ROS time, ns.
        px4_topic: takes accepted fixes instead of MAVLink: (fix, horizontal sigma in m, geoid's
            undulation in m, ROS time now in ns).
    """

    def __init__(
        self,
        connection: Connection,
        limits: PolicyLimits,
        *,
        kind: AskedKind = "auto",
        source_id: int = 1,
        geoid: Geoid | None = None,
        clock: Callable[[], int] = time.time_ns,
        px4_topic: Callable[[Fix, float, float, int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._source_id = source_id
        self._geoid = geoid
        self._clock = clock
        self._px4_topic = px4_topic
        self._lock = threading.Lock()
        self._policy = FixPolicy(limits)
        self._telemetry = Telemetry()
        self._clock_map = ClockMap()
        self._reason = ""
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._odometry: Counter[str] = Counter()
        self._last_fix: Fix | None = None
        self._target = (1, 1)
        self._stop = threading.Event()
        self._next = {"heartbeat": 0.0, "timesync": 0.0, "unhealthy": 0.0}
        self.on_state: Callable[[str, AutopilotState, int | None], None] | None = None
        """Called in the reading thread after each packet that says something of the autopilot, with
        the packet's type, the state, and its ROS stamp, ns; None where the packet has no time."""

    def start(self) -> None:
        """Let fixes through from now."""
        with self._lock:
            self._policy.start()

    def stop(self) -> None:
        """Let no fix through any more; what the autopilot says is still read."""
        with self._lock:
            self._policy.stop()

    def end(self) -> None:
        """Let :meth:`run` return."""
        self._stop.set()

    def run(self) -> None:
        """Read and keep the time until :meth:`end` is called."""
        while not self._stop.is_set():
            self.step(0.05)

    def step(self, timeout: float) -> None:
        """Read at most one packet, waiting at most ``timeout`` s for it, and do what is due."""
        message = self._connection.receive(timeout)
        now = time.monotonic()
        if message is not None:
            self._take(message)
        with self._lock:
            self._do_what_is_due(now)

    def _take(self, message: Any) -> None:
        received_ns = self._clock()
        with self._lock:
            if message.get_type() == "TIMESYNC":
                self._synchronise(message, received_ns)
                return
            if self._telemetry.take(message, time.monotonic_ns()):
                self._clock_map.forget()
            if message.get_type() == "HEARTBEAT" and self._telemetry.state.kind:
                self._target = (message.get_srcSystem(), message.get_srcComponent())
            boot_ms = getattr(message, "time_boot_ms", None)
            stamp = None
            if boot_ms is not None:
                self._clock_map.arrived(boot_ms * 1_000_000, received_ns)
                stamp = self._clock_map.to_ros(boot_ms * 1_000_000)
            state = self._telemetry.state
        listener = self.on_state
        if listener is not None and self._telemetry.knows(message.get_type()):
            listener(message.get_type(), state, stamp)

    def _synchronise(self, message: Any, received_ns: int) -> None:
        if message.tc1 == 0:  # a question: answer with our time
            answer = self._connection.encoder.timesync_encode(received_ns, message.ts1)
            self._connection.send(answer)
        elif 0 < received_ns - message.ts1 < 1_000_000_000:
            self._clock_map.exchanged(message.ts1, message.tc1, received_ns)

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._next["heartbeat"]:
            self._next["heartbeat"] = now + HEARTBEAT_PERIOD
            self._connection.heartbeat()
        if now >= self._next["timesync"]:
            self._next["timesync"] = now + TIMESYNC_PERIOD
            self._connection.send(self._connection.encoder.timesync_encode(0, self._clock()))
        state = self._policy.tick(self._clock(), self._telemetry.state, self._heard())
        if state is LinkState.LOST and now >= self._next["unhealthy"]:
            self._next["unhealthy"] = now + UNHEALTHY_PERIOD
            by_mavlink = self._speaks() == "px4" and self._px4_topic is None
            if by_mavlink and self._last_fix is not None:
                self._connection.send(self._position(self._last_fix, math.nan, healthy=False))

    def offer_fix(self, fix: Fix) -> Verdict:
        """Send a fix if the policy lets it through; return what became of it."""
        with self._lock:
            now_ns = self._clock()
            verdict = self._policy.consider(fix, now_ns, self._telemetry.state, self._heard())
            self._reason = verdict.reason
            if not verdict.send:
                return verdict
            self._last_fix = fix
            if self._px4_topic is not None:
                self._px4_topic(fix, verdict.sigma, self._undulation(fix), now_ns)
                self._latencies.append((self._clock() - fix.stamp_ns) * 1e-9)
                return verdict
            if self._speaks() == "ardupilot":
                message = outgoing.external_position_estimate(
                    self._connection.encoder,
                    fix,
                    target=self._target,
                    sigma=verdict.sigma,
                    now_ns=now_ns,
                )
            else:
                message = self._position(fix, verdict.sigma, healthy=True)
            if self._connection.send(message):
                self._latencies.append((self._clock() - fix.stamp_ns) * 1e-9)
            return verdict

    def offer_odometry(self, pose: outgoing.Odometry) -> bool:
        """Send a pose while the link is active; return whether it was sent."""
        with self._lock:
            if self._policy.state is not LinkState.ACTIVE:
                self._odometry["refused"] += 1
                return False
            try:
                time_ns = self._clock_map.to_autopilot(pose.stamp_ns)
                message = outgoing.odometry(self._connection.encoder, pose, time_ns)
            except InvalidParameterError:
                self._odometry["refused"] += 1
                return False
            sent = self._connection.send(message)
            self._odometry["sent" if sent else "refused"] += 1
            return sent

    def _position(self, fix: Fix, sigma: float, *, healthy: bool) -> Any:
        now_ns = self._clock()
        return outgoing.global_position_sensor(
            self._connection.encoder,
            fix,
            target=self._target,
            source_id=self._source_id,
            sigma=sigma,
            now_ns=now_ns,
            autopilot_ns=self._clock_map.to_autopilot(now_ns),
            undulation=self._undulation(fix),
            healthy=healthy,
        )

    def _undulation(self, fix: Fix) -> float:
        if self._geoid is None:
            return math.nan
        return self._geoid.undulation(fix.latitude, fix.longitude)

    def _speaks(self) -> str:
        return self._telemetry.state.kind if self._kind == "auto" else self._kind

    def _heard(self) -> float:
        heard_ns = self._telemetry.state.heard_ns
        return (time.monotonic_ns() - heard_ns) * 1e-9 if heard_ns else math.inf

    def snapshot(self) -> LinkStatus:
        """Return everything that is worth publishing, taken at one moment."""
        with self._lock:
            offset, uncertainty = self._clock_map.offset_ns, self._clock_map.uncertainty
            p50 = p95 = math.nan
            if self._latencies:
                p50, p95 = (float(x) for x in np.percentile(list(self._latencies), (50, 95)))
            return LinkStatus(
                state=self._policy.state,
                reason=self._reason,
                counts=dict(self._policy.counts),
                autopilot=self._telemetry.state,
                heard=self._heard(),
                latency_p50=p50,
                latency_p95=p95,
                resets=self._policy.resets,
                clock_jumps=self._clock_map.jumps,
                restarts=self._telemetry.state.restarts,
                time_offset=math.nan if offset is None else offset * 1e-9,
                time_uncertainty=math.nan if uncertainty is None else uncertainty,
                received=self._connection.received,
                lost=self._connection.lost_packets,
                malformed=self._connection.malformed,
                sent=self._connection.sent,
                send_failures=self._connection.send_failures,
                odometry_sent=self._odometry["sent"],
                odometry_refused=self._odometry["refused"],
            )
