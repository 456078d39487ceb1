"""autopilot.launch.py: both nodes come up, tell each other what they know, and fixes arrive."""

from __future__ import annotations

import unittest

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is not installed: it comes with a ROS 2 installation"
)
pytest.importorskip("launch_testing_ros", reason="launch_testing_ros is not installed")
pytest.importorskip("rasterio", reason="rasterio is not installed")
pytest.importorskip("pymavlink", reason="pymavlink is not installed")

import launch_testing
import launch_testing.asserts
import numpy as np
from arrivals import px4_positions
from flying_autopilot import say_attitude, say_height, say_position
from launch_parts import description, drive
from link_launch import Graph, autopilot, state_of
from localizing_process import hearing, ns
from node_process import ACTIVE
from sensor_msgs.msg import Imu
from stand_in_autopilot import StandInAutopilot
from test_link import free_port

from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.maps.frame import LocalFrame

CASES = {"root": "", "drone": "/drone"}
POSITIONS = 5
POSITION_SIGMA = 300.0
"""m, of where the stand-in takes itself to be."""
SAME_MOMENT = 30_000_000
"""ns between a frame's stamp and the same on the autopilot's clock."""


@pytest.mark.launch_test
@launch_testing.parametrize("case", list(CASES))
def generate_test_description(case):
    port = free_port()
    arguments = {"namespace": CASES[case].strip("/")} if CASES[case] else {}
    return description(autopilot(port, **arguments)), {"port": port}


class TestPositions(unittest.TestCase):
    def test_priors_go_in_and_positions_come_out(self, proc_output, case, port):
        namespace = CASES[case]
        node, link = f"{namespace}/inference_node", f"{namespace}/autopilot_link"
        for name in (node, link):
            proc_output.assertWaitFor(f"{name} is active", timeout=240)
        driver = drive(namespace)
        try:
            assert state_of(driver, node) == ACTIVE
            assert state_of(driver, link) == ACTIVE
            for topic in ("prior/fix", "prior/height", "imu"):
                wanted = Graph(frozenset({link}), frozenset({node}))
                self.see(driver, f"{namespace}/{topic}", wanted)
            for topic in ("fix", "localization_status"):
                wanted = Graph(frozenset({node}), frozenset({link}))
                self.see(driver, f"{node}/{topic}", wanted)
            with StandInAutopilot(port) as stand_in:
                self.fly(driver, stand_in)
        finally:
            driver.close()

    def see(self, driver, topic, wanted):
        driver.wait_until(lambda: Graph.of(driver, topic) == wanted, f"{topic}: {wanted}")

    def fly(self, driver, stand_in):
        heard, rng, turned = hearing(driver), np.random.default_rng(3), []
        driver.node.create_subscription(Imu, "imu", turned.append, 50)
        stand_in.said.position_sigma = POSITION_SIGMA
        for _ in range(4 * POSITIONS):
            said, flight, index = stand_in.said, heard.flight, heard.index
            say_position(said, flight, index, rng, POSITION_SIGMA)
            say_height(said, flight, index)
            say_attitude(said, flight, index, rng)
            passed = len(turned) + 2
            driver.wait_until(lambda passed=passed: len(turned) >= passed, "attitudes")
            heard.step(height=False)
            if len(px4_positions(stand_in)) >= POSITIONS:
                break
        positions = px4_positions(stand_in)
        assert len(positions) >= POSITIONS, heard.status
        frame, stamps = LocalFrame(*ORIGIN), np.array(sorted(heard.stamps))
        for position in positions:
            stamp = int(stamps[np.argmin(np.abs(stamps - position.exposed_ns))])
            assert abs(stamp - position.exposed_ns) < SAME_MOMENT
            assert stamp in [ns(fix.header) for fix in heard.fixes]
            place = complex(*frame.to_enu(position.latitude, position.longitude))
            error = abs(place - truth(heard.flight, heard.stamps[stamp]))
            assert error < 3.0 * position.sigma, (error, position)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_every_exit_code_is_zero(self, proc_info, case):
        launch_testing.asserts.assertExitCodes(proc_info)
