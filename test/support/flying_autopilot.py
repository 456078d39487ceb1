"""What a stand-in autopilot says while it flies the simulated flight: the truth, with noise."""

from __future__ import annotations

import math

import numpy as np
from pymavlink.quaternion import QuaternionBase
from stand_in_autopilot import Said

from gps_denied_inference.demo.scene_map import ORIGIN, truth
from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.maps.frame import LocalFrame

HEIGHT_SHARE = 1.04
"""The height that it says, as a share of the true one."""
TILT_SIGMA, HEADING_SIGMA = math.radians(0.7), math.radians(2.0)
"""rad."""
_CAMERA_TO_FRD = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""The camera looks down, the image's top ahead."""
_NED_TO_WORLD = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""The world of the simulation is east, south, down."""


def say_height(said: Said, flight: SimulatedFlight, index: int) -> None:
    """Let it say how high it is at a frame."""
    said.height = HEIGHT_SHARE * flight.pose(index).height


def say_attitude(said: Said, flight: SimulatedFlight, index: int, rng: np.random.Generator) -> None:
    """Let it say how it is turned at a frame, with noise of tilt and heading."""
    to_frd = _CAMERA_TO_FRD @ flight.rotation(index) @ _NED_TO_WORLD
    roll, pitch, yaw = QuaternionBase(to_frd.T).euler
    noise = rng.normal(size=3) * (TILT_SIGMA, TILT_SIGMA, HEADING_SIGMA)
    noisy = QuaternionBase([roll + noise[0], pitch + noise[1], yaw + noise[2]])
    w, x, y, z = (float(value) for value in noisy.q)
    said.quaternion = (w, x, y, z)


def say_position(
    said: Said, flight: SimulatedFlight, index: int, rng: np.random.Generator, sigma: float
) -> None:
    """Let it say where it is at a frame, with noise of ``sigma`` m along each axis."""
    place = truth(flight, index) + sigma * complex(*rng.normal(size=2))
    said.latitude, said.longitude = LocalFrame(*ORIGIN).to_geodetic(place.real, place.imag)
