"""Example: the inference node beside a visual-inertial estimator of your choice.

    ros2 launch gps_denied_inference vio_composition.launch.py \\
        vio_launch_file:=/path/to/estimator.launch.py image_topic:=/camera/image_raw

The estimator's launch file is included as it is. Its own topic names are given as ``vio_*``
arguments and remapped to the camera and to the node's results, so neither file has to be edited.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import (
    AnyLaunchDescriptionSource,
    PythonLaunchDescriptionSource,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import SetRemap

PACKAGE = "gps_denied_inference"
ARGUMENTS = {
    "vio_launch_file": (None, "Launch file of the estimator (.py, .xml or .yaml). Required."),
    "vio_arguments": ("", "Its arguments, as 'name:=value name:=value'."),
    "namespace": ("", "Namespace of the inference node."),
    "params_file": ("", "Parameter file of the inference node; empty = its default."),
    "autostart": ("true", "Configure and activate the inference node at once."),
    "use_sim_time": ("false", "Take time from /clock."),
    "image_topic": ("/camera/image_raw", "Camera image, for both."),
    "camera_info_topic": ("/camera/camera_info", "Calibration, for both."),
    "vio_image": ("image", "The estimator's name for the camera image."),
    "vio_camera_info": ("camera_info", "The estimator's name for the calibration."),
    "vio_features": ("feature_cloud", "The estimator's name for tracked features."),
    "vio_fix": ("fix", "The estimator's name for position fixes; the node publishes none yet."),
}


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

    names = ("namespace", "autostart", "use_sim_time", "image_topic", "camera_info_topic")
    inference = {name: value(name) for name in names}
    if value("params_file"):
        inference["params_file"] = value("params_file")
    results = f"/{value('namespace').strip('/')}/inference_node".replace("//", "/")
    profile = str(share / "config" / "fastdds_large_images.xml")
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
                SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),
                SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
                SetRemap(src=value("vio_image"), dst=value("image_topic")),
                SetRemap(src=value("vio_camera_info"), dst=value("camera_info_topic")),
                SetRemap(src=value("vio_features"), dst=f"{results}/feature_cloud"),
                SetRemap(src=value("vio_fix"), dst=f"{results}/fix"),
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
