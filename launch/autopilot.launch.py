"""Launch one inference node and the link that carries its fixes to an autopilot.

    ros2 launch gps_denied_inference autopilot.launch.py \
        params_file:=localize.yaml image_topic:=/camera/image_raw autopilot_url:=/dev/ttyTHS1

The inference node's arguments are those of ``inference.launch.py``; its parameter file has to ask
for ``task: localize`` and name a map. Both nodes are in one namespace, in which the link publishes
the priors that localization reads.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessStart
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

PACKAGE = "gps_denied_inference"
INFERENCE = "inference_node"
LINK = "autopilot_link"


def declare_arguments() -> list[DeclareLaunchArgument]:
    """Return the link's own arguments; the inference node's are declared by its launch file."""
    return [
        DeclareLaunchArgument(
            "autopilot_url",
            default_value="udp:127.0.0.1:14540",
            description="Where the autopilot is: udp:ADDRESS:PORT, udpout:ADDRESS:PORT or a serial "
            "device.",
        ),
        DeclareLaunchArgument(
            "link_params_file",
            default_value="",
            description="Parameter file of the link; empty = its defaults.",
        ),
    ]


def check_arguments(context, *_args) -> None:
    """Refuse what cannot be, before anything is started."""
    file = LaunchConfiguration("link_params_file").perform(context)
    if file and not Path(file).is_file():
        raise ValueError(f"link_params_file:={file}: no such file")


def start_link(context, *_args) -> list:
    """Return the link, with what configures and activates it."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    namespace = value("namespace")
    parameters = [{"use_sim_time": value("use_sim_time") == "true"}]
    if value("link_params_file"):
        parameters.append(value("link_params_file"))
    parameters.append({"autopilot_url": value("autopilot_url")})
    link = LifecycleNode(
        package=PACKAGE,
        executable=LINK,
        name=LINK,
        namespace=namespace,
        parameters=parameters,
        remappings=[
            ("fix", f"{INFERENCE}/fix"),
            ("odometry", f"{INFERENCE}/odometry"),
            ("localization_status", f"{INFERENCE}/localization_status"),
        ],
        output="screen",
    )
    if value("autostart") != "true":
        return [link]
    name = f"/{namespace.strip('/')}/{LINK}".replace("//", "/")
    starter = Node(package=PACKAGE, executable="autostart", arguments=[name], output="screen")
    on_start = OnProcessStart(target_action=link, on_start=[starter])
    return [RegisterEventHandler(on_start), link]


def generate_launch_description() -> LaunchDescription:
    """Return both nodes."""
    share = Path(get_package_share_directory(PACKAGE))
    inference = str(share / "launch" / "inference.launch.py")
    return LaunchDescription(
        [
            *declare_arguments(),
            OpaqueFunction(function=check_arguments),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(inference)),
            OpaqueFunction(function=start_link),
        ]
    )
