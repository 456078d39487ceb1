"""Why nothing arrives on a topic, or too much, as far as this end of it can tell."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from gps_denied_inference.pipeline.task_health import Finding

LARGE_IMAGES = (
    "large images need config/fastdds_large_images.xml in the camera's process and in this one"
)


def silence(node: Node, topic: str, kind: type, profile: QoSProfile, seen: int) -> Finding:
    """Return why no message of ``kind`` comes.

    Args:
        node: the node that subscribes.
        topic: resolved.
        kind: type of the messages, such as ``sensor_msgs.msg.Image``.
        profile: the subscription's.
        seen: messages that came before they stopped.
    """
    module = kind.__module__.split(".")[0]
    wanted = f"{module}/msg/{kind.__name__}"
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        if seen:
            return Finding(
                "publisher gone",
                f"{topic} has no publisher any more, after {seen} messages: has it ended?",
            )
        return Finding(
            "no publisher",
            f"nothing publishes on {topic}: does its sender run, and is it remapped?",
        )
    right = [publisher for publisher in publishers if publisher.topic_type == wanted]
    if not right:
        types = " and ".join(sorted({publisher.topic_type for publisher in publishers}))
        return Finding("type", f"{topic} carries {types}, not {wanted}: {_remedy(types, wanted)}")
    verdicts = [qos_check_compatible(publisher.qos_profile, profile) for publisher in right]
    if all(verdict == QoSCompatibility.ERROR for verdict, _ in verdicts):
        reason = verdicts[0][1].removeprefix("ERROR: ").rstrip(";. ")
        return Finding(
            "quality of service",
            f"the publisher of {topic} and this node have incompatible QoS ({reason}): change the "
            f"publisher's, or this node's by qos_overrides.{topic}.subscription",
        )
    if seen:
        return Finding(
            "stalled",
            f"{topic} has {len(right)} publisher(s), but stopped after {seen} messages: has its "
            f"sender hung? {LARGE_IMAGES}",
        )
    return Finding(
        "nothing comes through",
        f"{topic} has {len(right)} publisher(s) with the right type and QoS, but nothing comes "
        f"through: do they send? {LARGE_IMAGES}",
    )


def mixed(node: Node, topic: str) -> str:
    """Return who publishes on a topic of one camera; empty where no more than one does."""
    publishers = node.get_publishers_info_by_topic(topic)
    if len(publishers) < 2:
        return ""
    names = [
        "unnamed"
        if "UNKNOWN" in each.node_name
        else f"{each.node_namespace.rstrip('/')}/{each.node_name}"
        for each in publishers
    ]
    return (
        f"{topic} has {len(names)} publishers ({', '.join(sorted(names))}): their frames mix, and "
        "frames_in and the frames lost are counted together; remap all but one"
    )


def _remedy(types: str, wanted: str) -> str:
    if types == "sensor_msgs/msg/CompressedImage":
        return "set image_transport to 'compressed'"
    if types == "sensor_msgs/msg/Image" and wanted == "sensor_msgs/msg/CompressedImage":
        return "set image_transport to 'raw'"
    return "remap the topic to another one"
