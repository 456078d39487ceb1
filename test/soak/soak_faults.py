"""Faults of docs/faults.md, as a soak puts them in: each does its harm, undoes it, and says when.

A fault is a function of the flight that returns the monotonic s from which the node has to be
active again: when its cause was gone, or when it struck, where the node is to help itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType, ParameterValue
from soak_monitor import Monitor
from soak_processes import Camera, Node
from stand_in_autopilot import Faults, StandInAutopilot

RATE = 30


@dataclass
class Flight:
    """What a fault may lay hands on.

    Attributes:
        command: file that tells the double of the vendor's library what to do.
        disk: folder with the engine cache; a small disk of its own where one could be mounted.
        heat: sets the temperature, degC.
        astray: m that the autopilot's position is beside the truth.
    """

    camera: Camera
    node: Node
    monitor: Monitor
    autopilot: StandInAutopilot
    command: Path
    disk: Path
    disk_is_small: bool
    heat: Callable[[float], None]
    random: random.Random
    astray: float = 0.0


Fault = Callable[[Flight], float]
FAULTS: dict[str, Fault] = {}
ONCE_IN_THREE = ("node_killed",)
"""In every third round only, so that memory can be followed over a quarter of an hour."""


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def frames(flight: Flight, *kinds: str, seconds: float = 2.0) -> float:
    """Have the camera send frames of some kinds, one kind after the other."""
    for kind in kinds:
        flight.camera.send(kind, round(seconds * RATE / len(kinds)))
    time.sleep(seconds)
    return time.monotonic()


@fault
def camera_stopped(flight: Flight) -> float:
    """SIGSTOP and SIGCONT of the camera."""
    flight.camera.process.send_signal(signal.SIGSTOP)
    time.sleep(3.0)
    flight.camera.process.send_signal(signal.SIGCONT)
    return time.monotonic()


@fault
def camera_silent(flight: Flight) -> float:
    return frames(flight, "silent", seconds=3.0)


@fault
def camera_killed(flight: Flight) -> float:
    """Another camera comes; its own start is not the node's."""
    flight.camera.kill()
    sent = len(flight.camera.sent)
    flight.camera.start()
    while len(flight.camera.sent) == sent:
        time.sleep(0.02)
    return time.monotonic()


@fault
def node_stopped(flight: Flight) -> float:
    """SIGSTOP and SIGCONT of the node."""
    flight.node.signal(signal.SIGSTOP)
    time.sleep(3.0)
    flight.node.signal(signal.SIGCONT)
    return time.monotonic()


@fault
def node_killed(flight: Flight) -> float:
    """SIGKILL; it is started again, and autostart with it."""
    flight.node.signal(signal.SIGKILL)
    return time.monotonic()


@fault
def malformed_images(flight: Flight) -> float:
    return frames(flight, "short", "step", "encoding", "zero")


@fault
def image_too_large(flight: Flight) -> float:
    """Ten thousand megapixels, by its header."""
    return frames(flight, "huge")


@fault
def wrong_sizes(flight: Flight) -> float:
    return frames(flight, "small", "odd", "large", "small")


@fault
def black_images(flight: Flight) -> float:
    return frames(flight, "black")


@fault
def stamps_jump(flight: Flight) -> float:
    """An hour ahead, an hour behind, and none at all."""
    return frames(flight, "ahead", "behind", "zero_stamp")


@fault
def bad_camera_info(flight: Flight) -> float:
    return frames(flight, "bad_info")


@fault
def thermal_critical(flight: Flight) -> float:
    """Hotter and hotter to CRITICAL, then cool again."""
    for celsius in (96.0, 100.0, 106.0, 106.0):
        flight.heat(celsius)
        time.sleep(0.7)
    flight.heat(45.0)
    return time.monotonic()


def unconfigured(flight: Flight) -> None:
    flight.monitor.ask(Transition.TRANSITION_DEACTIVATE)
    flight.monitor.ask(Transition.TRANSITION_CLEANUP)


def again(flight: Flight) -> float:
    begin = time.monotonic()
    flight.monitor.bring_up()
    return begin


@fault
def deactivated(flight: Flight) -> float:
    flight.monitor.ask(Transition.TRANSITION_DEACTIVATE)
    time.sleep(1.0)
    return again(flight)


@fault
def cleaned_up(flight: Flight) -> float:
    unconfigured(flight)
    time.sleep(1.0)
    return again(flight)


@fault
def transitions_at_random(flight: Flight) -> float:
    """Thirty requests, of which none waits for the one before."""
    for _ in range(30):
        flight.monitor.fire(flight.random.choice((1, 2, 3, 4)))
        time.sleep(flight.random.uniform(0.0, 0.1))
    return again(flight)


@fault
def disk_full(flight: Flight) -> float:
    """No engine in the cache and no room for one: refused; then there is room."""
    unconfigured(flight)
    shutil.rmtree(flight.disk / "engines", ignore_errors=True)
    filler = flight.disk / "filler"
    if flight.disk_is_small:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
        assert not flight.monitor.ask(Transition.TRANSITION_CONFIGURE)
        filler.unlink()
    return again(flight)


@fault
def engine_damaged(flight: Flight) -> float:
    """Flipped bytes in every file of the cache; what is refused is taken away by the operator."""
    unconfigured(flight)
    for file in (flight.disk / "engines").rglob("*"):
        if file.is_file() and file.stat().st_size > 64:
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 0x55
            file.write_bytes(data)
    flight.monitor.ask(Transition.TRANSITION_CONFIGURE)
    unconfigured(flight)
    shutil.rmtree(flight.disk / "engines", ignore_errors=True)
    return again(flight)


def library(flight: Flight, command: str, seconds: float) -> float:
    """Let the double of the vendor's library misbehave."""
    flight.command.write_text(command, encoding="utf-8")
    begin = time.monotonic()
    time.sleep(seconds)
    flight.command.unlink()
    return begin


@fault
def infer_hangs(flight: Flight) -> float:
    """For 2.5 s, which is longer than infer_timeout; then it comes back to nobody."""
    return library(flight, "hang", 2.5)


@fault
def infer_fails(flight: Flight) -> float:
    return library(flight, "fail", 1.0) + 1.0


@fault
def infer_answers_nan(flight: Flight) -> float:
    return library(flight, "nan", 1.0) + 1.0


@fault
def parameters_at_random(flight: Flight) -> float:
    """Values that cannot be, and a limit of 10 Hz that can."""
    names = ("frame_rate_limit", "stall_timeout", "infer_timeout", "max_keypoints", "task")
    for _ in range(20):
        name = flight.random.choice(names)
        value = flight.random.choice((float("nan"), -1.0, 1e30))
        flight.monitor.set_parameter(
            name, ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
        )
    for rate in (10.0, 0.0):
        flight.monitor.set_parameter(
            "frame_rate_limit",
            ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=rate),
        )
        time.sleep(1.0)
    return time.monotonic()


@fault
def priors_jump(flight: Flight) -> float:
    """The autopilot says that it is 10 km away, and sure of it."""
    flight.astray = 10_000.0
    time.sleep(3.0)
    flight.astray = 0.0
    return time.monotonic()


@fault
def autopilot_restarts(flight: Flight) -> float:
    flight.autopilot.said.silent = True
    time.sleep(2.0)
    flight.autopilot.restart()
    flight.autopilot.said.silent = False
    return time.monotonic()


@fault
def autopilot_garbled(flight: Flight) -> float:
    """A third of its packets damaged, a third lost, and its clock set an hour ahead."""
    flight.autopilot.said.faults = Faults(drop=0.33, corrupt=0.33, reorder=0.2, delay=0.1)
    flight.autopilot.jump_clock(3600.0)
    time.sleep(3.0)
    flight.autopilot.said.faults = Faults()
    return time.monotonic()


_LISTENER = """
import rclpy
from gps_denied_inference.msg import FeatureArray
rclpy.init()
node = rclpy.create_node("slow_listener")
node.create_subscription(FeatureArray, "inference_node/features", lambda m: print(flush=True), 1)
rclpy.spin(node)
"""


@fault
def listener_stopped(flight: Flight) -> float:
    """A reliable subscriber stops taking anything, and dies without a word."""
    listener = subprocess.Popen(
        [sys.executable, "-c", _LISTENER], stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert listener.stdout is not None
    listener.stdout.readline()  # it hears the node
    listener.send_signal(signal.SIGSTOP)
    time.sleep(3.0)
    listener.kill()
    listener.wait()
    return time.monotonic()


def rounds(rng: random.Random) -> Callable[[], str]:
    """Return what draws the next fault: each once a round, in another order every round."""
    deck: list[str] = []
    number = 0

    def draw() -> str:
        nonlocal number
        if not deck:
            deck.extend(n for n in FAULTS if number % 3 == 0 or n not in ONCE_IN_THREE)
            rng.shuffle(deck)
            number += 1
        return deck.pop()

    return draw
