"""Parts of the launch tests: the launch file under test, and a driver for what it starts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import launch_testing.actions
import yaml
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from node_process import Driver

from gps_denied_inference.session import InferenceSession
from gps_denied_inference.settings import Settings

LAUNCH_FOLDER = Path(__file__).resolve().parents[2] / "launch"
FAKE = {"runtime": "fake", "max_keypoints": 100, "status_rate": 10.0}


class Launched:
    """What :class:`node_process.Driver` needs to know of a node that launch has started."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        self.full_name = f"{namespace}/inference_node"
        self.output = "(see launch's own output)"
        # launch watches the process, and may start another one in its place
        self.process = SimpleNamespace(poll=lambda: None)


def drive(namespace: str = "") -> Driver:
    """Return a driver for a launched node."""
    return Driver(Launched(namespace))  # type: ignore[arg-type]


def parameter_file(parameters: Mapping[str, Any] | None = None) -> Path:
    """Write a parameter file for a quick node, with ``parameters`` over its own."""
    engines = tempfile.mkdtemp(prefix="gdi_launch_test_")
    return written({**FAKE, "engine_cache_directory": engines, **(parameters or {})})


def written(parameters: Mapping[str, Any]) -> Path:
    """Write a parameter file."""
    file = Path(tempfile.mkdtemp(prefix="gdi_launch_test_")) / "parameters.yaml"
    document = {"/**": {"ros__parameters": dict(parameters)}}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def inference(parameters: Mapping[str, Any] | None = None, **arguments: str) -> GroupAction:
    """Return the launch file under test with a parameter file and launch arguments."""
    arguments.setdefault("params_file", str(parameter_file(parameters)))
    return included("inference.launch.py", **arguments)


def included(file: str, **arguments: str) -> GroupAction:
    """Return a launch file of this package with launch arguments."""
    source = PythonLaunchDescriptionSource(str(LAUNCH_FOLDER / file))
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=list(arguments.items()))])


def damaged_engine(truncate: bool) -> dict[str, Any]:
    """Build an engine, damage it, and return the parameters that would load it."""
    folder = Path(tempfile.mkdtemp(prefix="gdi_launch_test_"))
    parameters = {
        "runtime": "onnxruntime",
        "device": "cpu",
        "max_keypoints": 100,
        "engine_cache_directory": str(folder),
    }
    session = InferenceSession(Settings.from_mapping(parameters))
    session.open()
    engine = session.handle.entry.artifact
    session.close()
    data = bytearray(engine.read_bytes())
    if truncate:
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    return {**parameters, "engine_policy": "load_only"}


def description(*actions: Any) -> LaunchDescription:
    """Return a launch description whose tests may begin at once."""
    return LaunchDescription([*actions, launch_testing.actions.ReadyToTest()])
