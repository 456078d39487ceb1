"""Quality of service of every topic, and what the user changes of it by ``qos_overrides``."""

from __future__ import annotations

import copy
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from gps_denied_inference.errors import InvalidParameterError
from gps_denied_inference.node.rclpy_compat import parameter_overrides

IMAGE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
"""Sensor data, newest only: an old frame is worth nothing, and the worker keeps one of its own."""

CAMERA_INFO = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)

REFERENCE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)

LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For what was published once, before the subscription was there."""

STATE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""Latched: a late subscriber gets the newest state at once."""

PRIOR = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.BEST_EFFORT
)
"""Positions, heights and attitudes of other nodes, some of them fast."""

DEBUG_IMAGE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)

DIAGNOSTICS = QoSProfile(depth=10)

DEMO_FRAMES = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=4, reliability=ReliabilityPolicy.BEST_EFFORT
)

DEMO_ANSWERS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.RELIABLE
)

PX4_POSITION = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.BEST_EFFORT,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""As PX4's uXRCE-DDS client subscribes."""


def results(reliability: str) -> QoSProfile:
    """Return the profile of results for parameter ``result_reliability``."""
    if reliability == "best_effort":
        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT
        )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
    )


OVERRIDABLE = {
    QoSPolicyKind.HISTORY: ("keep_last", "keep_all"),
    QoSPolicyKind.DEPTH: None,
    QoSPolicyKind.RELIABILITY: ("reliable", "best_effort"),
    QoSPolicyKind.DURABILITY: ("volatile", "transient_local"),
}
"""Policies that ``qos_overrides.TOPIC.ENTITY.POLICY`` may change, with their values."""


class TopicQos:
    """The profile of one topic: this package's, under what the user's ``qos_overrides`` say.

    Args:
        node: whose parameter overrides are read.
        topic: before remapping.
        entity: "publisher" or "subscription".
        profile: this package's.

    Raises:
        InvalidParameterError: an override has a value that its policy does not know.
    """

    def __init__(self, node: Node, topic: str, entity: str, profile: QoSProfile) -> None:
        prefix = f"qos_overrides.{node.resolve_topic_name(topic)}.{entity}."
        self.topic = topic
        self.overridden: list[QoSPolicyKind] = []
        self._profile = profile
        for policy, values in OVERRIDABLE.items():
            name = prefix + policy.name.lower()
            override = parameter_overrides(node).get(name)
            if override is None:
                continue
            if values is None:
                if type(override.value) is not int or override.value < 0:
                    raise InvalidParameterError(name, override.value, "an integer >= 0")
            elif override.value not in values:
                raise InvalidParameterError(name, override.value, f"one of {', '.join(values)}")
            self.overridden.append(policy)

    def arguments(self) -> dict[str, Any]:
        """Return what ``create_publisher`` and ``create_subscription`` take.

        Only what is overridden is declared as parameters: rclpy declares them read-only and for
        good, with the defaults of the first configure.
        """
        return {
            "topic": self.topic,
            "qos_profile": copy.copy(self._profile),  # rclpy writes the overrides into it
            "qos_overriding_options": QoSOverridingOptions(self.overridden),
        }


def publisher(node: Node, topic: str, profile: QoSProfile) -> dict[str, Any]:
    """Return the arguments of ``create_publisher`` for ``topic``; see :class:`TopicQos`."""
    return TopicQos(node, topic, "publisher", profile).arguments()
