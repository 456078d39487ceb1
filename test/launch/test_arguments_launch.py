"""Launch arguments that cannot be are refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("launch", reason="launch is not installed: it comes with a ROS 2 installation")
pytest.importorskip("launch_ros", reason="launch_ros is not installed")

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import (
    PythonLaunchDescriptionSource,
    get_launch_description_from_python_launch_file,
)
from launch_parts import LAUNCH_FOLDER
from launch_ros.actions import Node


def visit(file: str, arguments: dict[str, str]) -> list[object]:
    """Do what launch does with a description, short of starting what it returns."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    found: list[object] = []
    description = get_launch_description_from_python_launch_file(str(LAUNCH_FOLDER / file))
    for entity in description.entities:
        found.extend(entity.visit(context) or [])
    return found


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("inference.launch.py", "params_file", "/no/such/parameters.yaml"),
        ("inference.launch.py", "fastdds_profile", "/no/such/profile.xml"),
        ("inference.launch.py", "respawn_delay", "soon"),
        ("inference.launch.py", "respawn_delay", "-1"),
        ("inference.launch.py", "log_level", "loud"),
        ("inference.launch.py", "autostart", "perhaps"),
        ("inference.launch.py", "respawn", "yes"),
        ("inference.launch.py", "use_sim_time", "1"),
        ("autopilot.launch.py", "link_params_file", "/no/such.yaml"),
        ("vio_composition.launch.py", "vio_launch_file", "/no/such/estimator.launch.py"),
        ("vio_composition.launch.py", "vio_arguments", "rate=20"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(file: str, name: str, value: str) -> None:
    arguments = {name: value}
    if name == "vio_arguments":
        arguments["vio_launch_file"] = __file__
    with pytest.raises((ValueError, RuntimeError)) as refusal:
        visit(file, arguments)
    assert name in str(refusal.value)
    assert value in str(refusal.value)


def children() -> set[str]:
    """Return the processes that this one has started and that are still there."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_a_refused_argument_of_the_link_starts_no_node_at_all() -> None:
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / "autopilot.launch.py"))
    refused = {"link_params_file": "/no/such.yaml"}.items()
    file = IncludeLaunchDescription(source, launch_arguments=refused)
    service = LaunchService()
    service.include_launch_description(LaunchDescription([file]))
    before = children()
    assert service.run() == 1
    assert children() == before


def test_without_nav2_nothing_is_started() -> None:
    """launch leaves a process behind that it started just before it meets a missing package."""
    file = str(LAUNCH_FOLDER / "nav2_lifecycle_manager.launch.py")
    entities = get_launch_description_from_python_launch_file(file).entities
    started = [e for e in entities if isinstance(e, (Node, IncludeLaunchDescription))]
    assert [type(e) for e in started] == [Node, IncludeLaunchDescription]


@pytest.mark.parametrize("autostart", ["true", "false"])
def test_good_arguments_give_actions(autostart: str) -> None:
    assert visit("inference.launch.py", {"autostart": autostart, "namespace": "front"})
