"""~/thermal_state: reads off the frames' path, publishes latched, commands the policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from gps_denied_inference import thermal
from gps_denied_inference.msg import ThermalState as ThermalStateMessage
from gps_denied_inference.node import messages, qos
from gps_denied_inference.runtimes.gpus import survey
from gps_denied_inference.settings import Settings
from gps_denied_inference.storage.files import user_path
from gps_denied_inference.thermal.monitor import ThermalMonitor
from gps_denied_inference.thermal.policy import PolicyConfig, ThermalAction, ThermalPolicy
from gps_denied_inference.thermal.state import ThermalState

FIRST_READING_TIMEOUT = 1.0
"""s, how long configure waits for the first reading."""


def gpu_of(device: str) -> int | str:
    """Return which GPU's temperature belongs to parameter ``device``, for ``choose_source``.

    CUDA counts the GPUs that ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` leave it, NVML all
    of them in the order of the bus; both know a GPU by its bus id. ``auto`` and ``cuda`` are CUDA's
    first, as for the runtimes; where CUDA shows none, NVML's first. A ``cuda:N`` that is not there
    is refused by the runtime.
    """
    name, _, number = device.partition(":")
    gpu = survey().get(int(number or 0))
    if name == "cpu" or gpu is None:
        return 0
    return gpu.pci_bus_id or gpu.uuid or gpu.index


class ThermalStatePublisher:
    """Owns the thermal source, its reader thread, the policy and the topic.

    A reader that hangs costs nothing but the newest state: it runs in a thread of its own, and
    the timer that publishes has its own callback group.

    Args:
        node: the node that publishes.
        settings: thermal_* settings.
        on_action: called whenever the commanded action changes.

    Raises:
        RuntimeUnavailableError: a source that was asked for by name is not there.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: Settings,
        on_action: Callable[[ThermalAction | None], None],
    ) -> None:
        self._node = node
        self._on_action = on_action
        self._policy_enabled = settings.thermal_policy
        self._policy = ThermalPolicy(
            PolicyConfig(
                dwell=settings.thermal_dwell,
                warm_rate=settings.thermal_warm_rate,
                throttling_rate=settings.thermal_throttling_rate,
                critical_rate=settings.thermal_critical_rate,
                throttling_keypoints=settings.thermal_reduced_keypoints,
                critical_keypoints=settings.thermal_reduced_keypoints,
                refuse_when_critical=settings.thermal_refuse_activation,
            )
        )
        self._action: ThermalAction | None = None
        self._lock = threading.Lock()
        self._destroyed = False
        replay = settings.thermal_replay_file
        source = thermal.choose_source(
            settings.thermal_source,
            sysfs_root=Path(settings.thermal_sysfs_root),
            replay=user_path(replay, "thermal_replay_file") if replay else None,
            device=gpu_of(settings.device),
        )
        period = 1.0 / settings.thermal_rate
        self._monitor = ThermalMonitor(source, period)
        self._monitor.start()
        self._publisher = node.create_publisher(
            ThermalStateMessage, **qos.publisher(node, "~/thermal_state", qos.STATE)
        )
        self._group = MutuallyExclusiveCallbackGroup()
        # The first reading is published, and obeyed, before the node can be activated; a reader
        # that hangs holds configure up for no longer than this.
        self._monitor.wait_fresh(min(period, FIRST_READING_TIMEOUT))
        self.publish()
        # A computer heats up in real time, whatever time a simulation keeps.
        self._timer = node.create_timer(
            period,
            self.publish,
            callback_group=self._group,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def current(self) -> ThermalState:
        """Return the newest state; never blocks on the reader."""
        return self._monitor.latest()

    @property
    def action(self) -> ThermalAction | None:
        """What the policy commands now; None while it is off or nothing was read yet."""
        return self._action

    def enable_policy(self, enabled: bool) -> None:
        """Turn the closed loop on or off; off lifts every limit at once."""
        self._policy_enabled = enabled

    def publish(self) -> None:
        """Publish the newest state and what is commanded because of it. Any thread may call."""
        with self._lock:
            if self._destroyed:
                return
            state = self._monitor.latest()
            previous = self._action
            # The policy follows the level even while it is off: switching it on acts at once.
            action = self._policy.update(state, time.monotonic())
            self._action = action if self._policy_enabled else None
            if self._action != previous:
                self._on_action(self._action)
            if self._action is not None:
                state = self._action.written_into(state)
            self._publisher.publish(messages.thermal_state(state))

    def destroy(self) -> None:
        """Give the reader, the timer and the topic back."""
        self._node.destroy_timer(self._timer)
        self._monitor.stop()
        # A timer callback may be under way in another thread: it ends before its topic goes.
        with self._lock:
            self._destroyed = True
        self._node.destroy_publisher(self._publisher)
