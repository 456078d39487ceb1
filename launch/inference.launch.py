"""Launch one inference node.

    ros2 launch gps_denied_inference inference.launch.py image_topic:=/camera/image_raw

Everything can be set from outside (``--show-args`` lists it); nothing outside the node is touched.
For several cameras, include this file once per camera inside a ``GroupAction`` (its arguments are
launch-wide otherwise) and give each a ``namespace``.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ShutdownProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from gps_denied_inference.clients.fastdds_profile import fastdds_environment

PACKAGE = "gps_denied_inference"
NODE = "inference_node"
BOOLEAN = ["true", "false"]


def declare_arguments(share: Path) -> list[DeclareLaunchArgument]:
    """Return every launch argument with its default and meaning."""
    return [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share / "config" / "inference.yaml"),
            description="Parameter file; the default one, which empty stands for too, lists and "
            "explains every parameter.",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=BOOLEAN,
            description="Take time from /clock (simulation, bag replay).",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            choices=BOOLEAN,
            description="Configure and activate at once; a refusal is reported in one line. "
            "false: an external lifecycle manager does it.",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Log level of the node's own logger.",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=BOOLEAN,
            description="Start the node again when it dies (with autostart: up to ACTIVE).",
        ),
        DeclareLaunchArgument(
            "respawn_delay", default_value="1.0", description="Seconds before a respawn."
        ),
        DeclareLaunchArgument(
            "image_topic",
            default_value="image",
            description="Camera image; with image_transport 'compressed', the name without "
            "'/compressed'.",
        ),
        DeclareLaunchArgument(
            "camera_info_topic",
            default_value="",
            description="Calibration; empty = camera_info beside the image topic.",
        ),
        DeclareLaunchArgument(
            "reference_image_topic",
            default_value="reference/image",
            description="Image that task 'match' compares with.",
        ),
        DeclareLaunchArgument(
            "fastdds_profile",
            default_value="auto",
            description="Fast DDS profile for the node. auto: the large-image profile of this "
            "package, unless the environment names one already or another RMW is used; none; or "
            "the path of an XML file. The camera driver needs it too.",
        ),
    ]


def start_node(context, share: Path) -> list:
    """Check the arguments and return the node with its event handlers."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    # A file that includes this one may have an argument of the same name, empty by default.
    params_file = value("params_file") or str(share / "config" / "inference.yaml")
    if not Path(params_file).is_file():
        raise ValueError(f"params_file:={params_file}: no such file")
    try:
        respawn_delay = float(value("respawn_delay"))
    except ValueError:
        respawn_delay = -1.0
    if respawn_delay < 0:
        raise ValueError(f"respawn_delay:={value('respawn_delay')}: must be seconds, >= 0")

    calibration = value("camera_info_topic")
    full_name = f"/{value('namespace').strip('/')}/{NODE}".replace("//", "/")
    logger = full_name.strip("/").replace("/", ".")
    node = LifecycleNode(
        package=PACKAGE,
        executable="inference_node",
        name=NODE,
        namespace=value("namespace"),
        parameters=[params_file, {"use_sim_time": value("use_sim_time") == "true"}],
        remappings=[
            ("image", value("image_topic")),
            ("image/compressed", f"{value('image_topic')}/compressed"),
            ("reference/image", value("reference_image_topic")),
            *([("camera_info", calibration)] if calibration else []),
        ],
        arguments=["--ros-args", "--log-level", f"{logger}:={value('log_level')}"],
        additional_env=fastdds_environment(value("fastdds_profile"), share, os.environ),
        respawn=value("respawn") == "true",
        respawn_delay=respawn_delay,
        output="screen",
    )
    if value("autostart") != "true":
        return [node]
    return [*autostart_handlers(node, full_name), node]


def autostart_handlers(node: LifecycleNode, full_name: str) -> list:
    """Run ``autostart`` beside every start of the node, and report when it fails.

    Handlers come before the node, or its first start would go unseen.
    """
    running: list[Node] = []

    def on_start(_event, _context):
        starter = Node(
            package=PACKAGE,
            executable="autostart",
            arguments=[full_name],
            output="screen",
        )
        running.append(starter)
        return [RegisterEventHandler(OnProcessExit(target_action=starter, on_exit=report)), starter]

    def report(event, context):
        starter = event.action
        if starter in running:
            running.remove(starter)
            if event.returncode != 0 and not context.is_shutdown:
                get_logger("launch").error(
                    f"{full_name} was not started: autostart ended with exit code "
                    f"{event.returncode}; the node runs on and can be configured again with "
                    f"'ros2 lifecycle set {full_name} configure'"
                )

    def on_exit(event, _context):
        # An autostart that talks to a dead process would wait for its answer.
        stale, running[:] = list(running), []
        stop = [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(a))) for a in stale]
        return [LogInfo(msg=f"{full_name} ended with exit code {event.returncode}"), *stop]

    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=on_start)),
        RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit)),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    share = Path(get_package_share_directory(PACKAGE))
    return LaunchDescription(
        [*declare_arguments(share), OpaqueFunction(function=start_node, args=[share])]
    )
