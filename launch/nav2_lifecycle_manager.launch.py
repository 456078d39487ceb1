"""Example: nav2's lifecycle manager brings the inference node up, instead of ``autostart``.

    ros2 launch gps_denied_inference nav2_lifecycle_manager.launch.py image_topic:=/camera/image_raw

The node keeps no bond, so ``bond_timeout`` is 0: a node that dies is respawned by launch, and
brought up again with the manager's ``manage_nodes`` service (or ``respawn`` + ``autostart`` of
``inference.launch.py``, which needs no manager). Nav2 gives a transition up after
``service_timeout``, 5 s unless set, and building an engine takes longer; releases that do not have
this parameter yet ignore it.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PACKAGE = "gps_denied_inference"


def generate_launch_description() -> LaunchDescription:
    """Return the node and the manager (package nav2_lifecycle_manager)."""
    share = Path(get_package_share_directory(PACKAGE))
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="For both."),
            DeclareLaunchArgument("image_topic", default_value="image", description="Camera."),
            # Before the node: where the manager is not installed, nothing must have been started.
            Node(
                package="nav2_lifecycle_manager",
                executable="lifecycle_manager",
                name="lifecycle_manager_inference",
                namespace=LaunchConfiguration("namespace"),
                parameters=[
                    {
                        "autostart": True,
                        "node_names": ["inference_node"],
                        "bond_timeout": 0.0,
                        "service_timeout": 1800.0,
                    }
                ],
                output="screen",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / "launch" / "inference.launch.py")),
                launch_arguments={
                    "autostart": "false",
                    "namespace": LaunchConfiguration("namespace"),
                    "image_topic": LaunchConfiguration("image_topic"),
                }.items(),
            ),
        ]
    )
