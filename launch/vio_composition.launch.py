"""Example: the inference node beside a visual-inertial estimator of your choice.

    ros2 launch gps_denied_inference vio_composition.launch.py \\
        vio_launch_file:=/path/to/estimator.launch.py image_topic:=/camera/image_raw

The estimator's launch file is included as it is. Its own names of the camera's topics are given as
``vio_*`` arguments and remapped, so neither file has to be edited. ``vio_features:=NAME`` gives it
the node's tracks too; they are published with ``task: track`` in ``params_file``.
"""

import os
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    UnsetLaunchConfiguration,
)
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    PythonLaunchDescriptionSource,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import SetRemap

from gps_denied_inference.clients.fastdds_profile import fastdds_environment
from gps_denied_inference.node.topics import calibration_beside

PACKAGE = "gps_denied_inference"
ARGUMENTS = {
    "vio_launch_file": (None, "Launch file of the estimator (.py, .xml or .yaml). Required."),
    "vio_arguments": ("", "Its arguments, as 'name:=value name:=value'."),
    "namespace": ("", "Namespace of the inference node."),
    "params_file": ("", "Parameter file of the inference node; empty = its default."),
    "autostart": ("true", "Configure and activate the inference node at once."),
    "use_sim_time": ("false", "Take time from /clock; true is handed on to the estimator."),
    "image_topic": ("/camera/image_raw", "Camera image, for both."),
    "camera_info_topic": ("", "Calibration, for both; empty = camera_info beside the image."),
    "fastdds_profile": (
        "auto",
        "Fast DDS profile, for both. auto: the large-image profile of this package, unless the "
        "environment names one already or another RMW is used; none; or the path of an XML file.",
    ),
    "vio_image": ("image", "The estimator's name for the camera image."),
    "vio_camera_info": ("camera_info", "The estimator's name for the calibration."),
    "vio_features": (
        "",
        "The estimator's name for tracked features; empty = it is not given the node's.",
    ),
}


def publishes_features(params_file: Path) -> bool:
    """Tell whether a parameter file asks for the task that publishes ``~/feature_cloud``."""
    with params_file.open(encoding="utf-8") as stream:
        pending = [yaml.safe_load(stream)]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if part.get("task") == "track":
                return True
            pending.extend(part.values())
    return False


def compose(context, share: Path) -> list:
    """Check the arguments and return the two groups."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    vio_launch_file = Path(value("vio_launch_file"))
    if not vio_launch_file.is_file():
        raise ValueError(f"vio_launch_file:={vio_launch_file}: no such file")
    pairs = [part.partition(":=") for part in value("vio_arguments").split()]
    wrong = [name for name, separator, _ in pairs if not separator]
    if wrong:
        raise ValueError(f"vio_arguments: '{wrong[0]}' is not of the form name:=value")
    params_file = Path(value("params_file") or share / "config" / "inference.yaml")
    if not params_file.is_file():
        raise ValueError(f"params_file:={params_file}: no such file")
    calibration = value("camera_info_topic") or calibration_beside(value("image_topic"))
    remaps = {"vio_image": value("image_topic"), "vio_camera_info": calibration}
    if value("vio_features"):
        if not publishes_features(params_file):
            raise ValueError(
                f"vio_features:={value('vio_features')}: nothing would be published there, since "
                f"params_file:={params_file} does not set 'task: track'"
            )
        results = f"/{value('namespace').strip('/')}/inference_node".replace("//", "/")
        remaps["vio_features"] = f"{results}/feature_cloud"

    names = ("namespace", "autostart", "use_sim_time", "image_topic")
    inference = {name: value(name) for name in (*names, "fastdds_profile")}
    inference["camera_info_topic"] = calibration
    inference["params_file"] = str(params_file)
    # The estimator may have arguments of the same names: it gets its own defaults of them.
    kept = {"use_sim_time"} if value("use_sim_time") == "true" else set()
    profile = fastdds_environment(value("fastdds_profile"), share, os.environ)
    return [
        # Groups keep arguments, remappings and environment from leaking into one another.
        GroupAction(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(str(share / "launch" / "inference.launch.py")),
                    launch_arguments=inference.items(),
                )
            ]
        ),
        GroupAction(
            [
                # Subscribers of large images need the profile as much as the camera does.
                *(SetEnvironmentVariable(name, file) for name, file in profile.items()),
                *(SetRemap(src=value(name), dst=topic) for name, topic in remaps.items()),
                *(UnsetLaunchConfiguration(name) for name in ARGUMENTS if name not in kept),
                IncludeLaunchDescription(
                    AnyLaunchDescriptionSource(str(vio_launch_file)),
                    launch_arguments=[(name, argument) for name, _, argument in pairs],
                ),
            ]
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the composition."""
    share = Path(get_package_share_directory(PACKAGE))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()
            ),
            OpaqueFunction(function=compose, args=[share]),
        ]
    )
