"""rclpy's internals are reached for in one place; canaries say where it is needed no more."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
import rclpy.executors
import rclpy.lifecycle.node
import rclpy.node
from canary import MendedUpstreamWarning, canary
from lifecycle_msgs.msg import Transition
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from gps_denied_inference.node.managed import ManagedNode
from gps_denied_inference.node.rclpy_compat import (
    REACHES,
    RCLError,
    guard_change_state,
    lifecycle_state,
    parameter_overrides,
)

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    path
    for folder in ("node", "clients")
    for path in sorted((ROOT / "gps_denied_inference" / folder).glob("*.py"))
    if path.name != "rclpy_compat.py"
]
SOURCES = "".join(
    Path(module.__file__ or "").read_text(encoding="utf-8")
    for module in (rclpy.node, rclpy.lifecycle.node, rclpy.executors)
)
PRIVATE = set(re.findall(r"\b(?:self|cls)\.(_[a-z]\w*)|def (_[a-z]\w*)", SOURCES))
PRIVATE_NAMES = {name for pair in PRIVATE for name in pair if name}


def reaches(text: str) -> set[str]:
    """Return the private names of rclpy that a module uses without giving them a value itself."""
    tree = ast.parse(text)
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used = {node.attr for node in attributes if node.attr in PRIVATE_NAMES - own}
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return used | {name for name in modules if name and name.startswith("rclpy.impl")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_one_module_reaches_into_rclpy(path: Path) -> None:
    assert reaches(path.read_text(encoding="utf-8")) == set()


def test_a_reach_would_be_seen() -> None:
    text = (ROOT / "gps_denied_inference" / "node" / "rclpy_compat.py").read_text(encoding="utf-8")
    assert reaches(text) == {
        "_service_change_state",
        "_state_machine",
        "_parameter_overrides",
        "rclpy.impl.implementation_singleton",
    }


def test_every_reach_says_why_where_and_has_its_canary() -> None:
    tests = "".join(
        (ROOT / "test" / "node" / name).read_text(encoding="utf-8")
        for name in ("test_spinning.py", "test_rclpy_compat.py")
    )
    assert set(re.findall(r'canary\(\s*"([^"]+)"', tests)) == set(REACHES)
    for reach in REACHES.values():
        assert reach.why
        assert set(reach.serves) <= {"jazzy", "kilted", "lyrical"}
        for address in reach.upstream:
            assert re.fullmatch(r"https://github.com/ros2/rclpy/(issues|pull)/\d+", address)


def test_a_mended_upstream_warns_and_does_not_fail() -> None:
    name = next(iter(REACHES))
    canary(name, mended=False)
    with pytest.warns(MendedUpstreamWarning, match=name):
        canary(name, mended=True)


@pytest.fixture
def context() -> Iterator[Any]:
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    yield context
    context.try_shutdown()


def asked(transition: int) -> Any:
    return SimpleNamespace(transition=Transition(id=transition, label=""))


def test_canary_an_impossible_transition(context: Any) -> None:
    """Two things have to come from rclpy: an answer, and a public way to put a lock around it."""
    node = LifecycleNode("bare", context=context)
    taken: list[Any] = []
    guard_change_state(node, lambda callback: taken.append(callback) or callback)
    try:
        taken[0](asked(Transition.TRANSITION_ACTIVATE), SimpleNamespace(success=True))
        answered = True
    except RCLError:
        answered = False
    public = {name for name in dir(LifecycleNode) if not name.startswith("_")}
    canary("change_state is guarded", answered and bool(public & {"set_change_state_callback"}))
    node.destroy_node()


def test_a_managed_node_answers_it_and_keeps_its_state(context: Any) -> None:
    node = ManagedNode("managed", context=context)
    callbacks: list[Any] = []
    guard_change_state(node, lambda callback: callbacks.append(callback) or callback)
    response = callbacks[0](asked(Transition.TRANSITION_ACTIVATE), SimpleNamespace(success=True))
    assert response.success is False
    assert lifecycle_state(node)[1] == "unconfigured"
    node.destroy_node()


def test_canary_the_state_in_public(context: Any) -> None:
    node = LifecycleNode("bare", context=context)
    assert lifecycle_state(node) == (1, "unconfigured")
    public = {"current_state", "get_current_state", "get_state", "state"}
    canary("the state is asked for", bool(public & set(dir(node))))
    node.destroy_node()


def services_left(node: LifecycleNode, context: Any) -> bool:
    """Destroy ``node`` while something still refers to it; tell whether its services are left."""
    machine = node._state_machine
    node.destroy_node()
    try:
        with machine:
            return True
    except rclpy.exceptions.InvalidHandle:
        return False


def test_canary_destroying_the_state_machine(context: Any) -> None:
    left = services_left(LifecycleNode("bare", context=context), context)
    canary("the state machine is destroyed", mended=not left)


def test_a_managed_node_destroys_its_state_machine(context: Any) -> None:
    assert not services_left(ManagedNode("managed", context=context), context)


def test_overrides_are_read_before_they_are_declared(context: Any) -> None:
    node = rclpy.create_node(
        "bare", context=context, parameter_overrides=[Parameter("some.name", value=3)]
    )
    assert {name: found.value for name, found in parameter_overrides(node).items()} == {
        "some.name": 3
    }
    assert not node.has_parameter("some.name")
    public = {"parameter_overrides", "get_parameter_overrides"}
    canary("overrides are read before declaring", bool(public & set(dir(node))))
    node.destroy_node()
