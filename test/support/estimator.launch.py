"""Stands for a visual-inertial estimator: one node that subscribes what estimators subscribe."""

import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PROGRAM = """
import signal, rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import CameraInfo, Image, NavSatFix, PointCloud
rclpy.init()
node = rclpy.create_node("estimator")
topics = {"cam0": Image, "info0": CameraInfo, "features": PointCloud, "gps": NavSatFix}
for topic, kind in topics.items():
    node.create_subscription(kind, topic, lambda message: None, qos_profile_sensor_data)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
"""


def generate_launch_description() -> LaunchDescription:
    """Return the node, in a namespace of its own by an argument that others have too."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="vio"),
            Node(
                executable=sys.executable,
                arguments=["-c", PROGRAM],
                namespace=LaunchConfiguration("namespace"),
            ),
        ]
    )
