"""config/sros2/policy.xml allows what the real nodes have in the ROS graph, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

from fake_map import fake_map
from lifecycle_msgs.msg import Transition
from link_process import flown
from node_process import ROOT, driven
from rclpy.node import Node

POLICY = ROOT / "config" / "sros2" / "policy.xml"
KINDS = ("publish", "subscribe", "reply", "request")
ENGINE = {
    "runtime": "fake", "device": "cpu", "max_keypoints": 50, "image_width": 128,
    "image_height": 128, "warmup_iterations": 1, "thermal_source": "none",
}  # fmt: skip
Graph = dict[str, set[str]]


def graph(seen_from: Node, name: str) -> Graph:
    """Return a node's names in the ROS graph, by what it does with them."""
    return {
        kind: {topic for topic, _ in ask(name, "/")}
        for kind, ask in (
            ("publish", seen_from.get_publisher_names_and_types_by_node),
            ("subscribe", seen_from.get_subscriber_names_and_types_by_node),
            ("reply", seen_from.get_service_names_and_types_by_node),
            ("request", seen_from.get_client_names_and_types_by_node),
        )
    }


def settled(seen_from: Node, name: str) -> Graph:
    """Return the graph of a node once discovery has brought nothing new for a second."""
    end, since, last = time.monotonic() + 30.0, time.monotonic(), Graph()
    while time.monotonic() - since < 1.0:
        assert time.monotonic() < end
        time.sleep(0.1)
        try:
            now = graph(seen_from, name)
        except Exception:  # the node is not discovered yet
            now = {}
        if now != last or not now or not now["publish"]:
            last, since = now, time.monotonic()
    return last


def allowed(node: str) -> Graph:
    """Return what the policy allows a node, as full names."""
    (profile,) = ElementTree.parse(POLICY).findall(f".//profile[@node='{node}']")
    assert profile.get("ns") == "/"
    found: Graph = {kind: set() for kind in KINDS}
    for group in profile:
        for kind, value in group.attrib.items():
            assert value == "ALLOW"
            for name in group:
                text = str(name.text)
                found[kind].add(text.replace("~", f"/{node}") if text[0] in "~/" else f"/{text}")
    return found


def union(graphs: list[Graph]) -> Graph:
    return {kind: set().union(*(g[kind] for g in graphs)) for kind in KINDS}


def check(node: str, real: Graph) -> None:
    policy = allowed(node)
    for kind in KINDS:
        assert sorted(real[kind] - policy[kind]) == [], f"{node} may not {kind} these"
        assert sorted(policy[kind] - real[kind]) == [], f"{node} never does {kind} these"


@contextmanager
def active(folder: Path, parameters: Mapping[str, Any]) -> Iterator[Graph]:
    folder.mkdir()
    with driven(folder, parameters=parameters) as (process, driver):
        assert driver.configure(), process.output
        assert driver.transition(Transition.TRANSITION_ACTIVATE), process.output
        yield settled(driver.node, "inference_node")


def test_the_policy_is_the_inference_node_s_graph(tmp_path: Path) -> None:
    engine = {**ENGINE, "engine_cache_directory": str(tmp_path / "engines")}
    flights = {
        "localize": {"task": "localize", "map_file": str(fake_map(tmp_path, engine))},
        "match": {"task": "match", "image_transport": "compressed", "use_sim_time": True},
        "track": {"task": "track"},
    }
    graphs = []
    for name, parameters in flights.items():
        with active(tmp_path / name, {**engine, **parameters}) as seen:
            graphs.append(seen)
    check("inference_node", union(graphs))


def test_the_policy_is_the_autopilot_link_s_graph(tmp_path: Path) -> None:
    graphs = []
    for use_sim_time in (False, True):
        with flown(tmp_path, use_sim_time=use_sim_time, send_odometry=True) as (
            process, client, _,
        ):  # fmt: skip
            assert client.change(Transition.TRANSITION_CONFIGURE), process.output
            assert client.change(Transition.TRANSITION_ACTIVATE), process.output
            graphs.append(settled(client.node, "autopilot_link"))
    check("autopilot_link", union(graphs))


def test_the_policy_is_autostart_s_graph(tmp_path: Path) -> None:
    from link_process import Client

    command = [sys.executable, str(ROOT / "scripts" / "autostart"), "/inference_node"]
    client = Client()
    try:
        with subprocess.Popen(command, cwd=tmp_path) as process:  # it waits for a node
            try:
                check("autostart_inference_node", settled(client.node, "autostart_inference_node"))
            finally:
                process.kill()
    finally:
        client.close()


@pytest.mark.parametrize("keys", ["", "identity_ca.cert.pem"])
def test_a_node_that_is_to_enforce_security_and_cannot_does_not_start(
    tmp_path: Path, keys: str
) -> None:
    """No keys, or keys that are none: one line and exit code 1, never a node that everybody hears.

    With keys, ROS 2 as wheels ends here too: its Fast DDS is built without security.
    """
    enclave = tmp_path / "enclaves" / "inference"
    enclave.mkdir(parents=True)
    if keys:
        for name in (keys, "cert.pem", "key.pem", "permissions_ca.cert.pem", "governance.p7s",
                     "permissions.p7s"):  # fmt: skip
            (enclave / name).write_text("no key\n")
    environment = {
        "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path), "ROS_LOG_DIR": str(tmp_path / "log"),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "inference_node"),
         "--ros-args", "--enclave", "/inference"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1, output
    assert "cannot start: " in output
    assert "Traceback" not in output
