"""A topic beside the frames, received from latched and from volatile publishers alike."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, ReliabilityPolicy

from gps_denied_inference.node import qos
from gps_denied_inference.pipeline.sequence import UNSUPPORTED

LOOK_PERIOD = 0.25
"""s between looks at who publishes."""
REMEMBERED = 16
"""Newest messages known by their numbers, so that one received twice is taken once."""


class SideInput:
    """Subscribes to one topic as its publishers need it; each message is taken once.

    A volatile subscription gets nothing of what was published before it was there, and a durable
    one nothing of a volatile publisher. So there is a volatile one from the start, and a durable
    one beside it as soon as a latched publisher is seen; not before, since both sides would log an
    incompatible quality of service for every other publisher. Where the user overrides the
    durability, there is only the one asked for.

    Args:
        node: the node that subscribes.
        kind: type of the messages.
        topic: name and quality of service of the volatile subscription.
        take: called with each message, never twice at a time.
    """

    def __init__(
        self, node: Node, kind: type, topic: qos.TopicQos, take: Callable[[Any], None]
    ) -> None:
        self._node = node
        self._kind = kind
        self._topic = topic
        self._take = take
        self._seen: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._group = MutuallyExclusiveCallbackGroup()
        self._lock = threading.Lock()
        self._timer: Any = None
        self._subscriptions = [self._subscribe(topic.arguments())]
        if QoSPolicyKind.DURABILITY not in topic.overridden:
            # A steady clock: a simulation that stands still still has a map.
            self._timer = node.create_timer(
                LOOK_PERIOD,
                self._look,
                callback_group=MutuallyExclusiveCallbackGroup(),
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
            self._look()

    def _subscribe(self, arguments: dict[str, Any]) -> Any:
        return self._node.create_subscription(
            self._kind, callback=self._receive, callback_group=self._group, **arguments
        )

    def _look(self) -> None:
        """Subscribe durably once somebody publishes durably."""
        name = self._node.resolve_topic_name(self._topic.topic)
        latched = any(
            publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            and publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            for publisher in self._node.get_publishers_info_by_topic(name)
        )
        with self._lock:
            if latched and len(self._subscriptions) == 1:
                arguments = {"topic": self._topic.topic, "qos_profile": qos.LATCHED}
                self._subscriptions.append(self._subscribe(arguments))
                self._node.destroy_timer(self._timer)

    def _receive(self, message: Any, info: Any) -> None:
        stamp = info.get("source_timestamp", 0)
        key = (stamp, info.get("publication_sequence_number", UNSUPPORTED))
        if stamp and key in self._seen:
            return
        self._seen.append(key)
        self._take(message)

    def destroy(self) -> None:
        """Take no more messages."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        with self._lock:
            subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
