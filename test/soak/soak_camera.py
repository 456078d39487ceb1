"""The soak's camera, a process of its own: 30 Hz over DDS, and whatever it is told to send instead.

Each frame's ``frame_id`` is ``cam:LIFE:NUMBER``, so that its answer is known whatever its stamp.
stdin takes ``KIND COUNT`` (see :data:`KINDS`); stdout gives a line for each frame,
``NUMBER MONOTONIC_NS KIND``.
"""

from __future__ import annotations

import argparse
import collections
import signal
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Any

KINDS = (
    "good", "short", "step", "encoding", "zero", "huge", "small", "odd", "large", "black",
    "zero_stamp", "ahead", "behind", "bad_info", "silent",
)  # fmt: skip
HOUR = 3600 * 1_000_000_000


def spoilt(message: Any, info: Any, kind: str) -> None:
    """Make of a good frame one of a kind, in place."""
    import cv2
    import numpy as np

    def resized(width: int, height: int) -> None:
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        message.data = array("B", cv2.resize(pixels, (width, height)).tobytes())
        message.width = message.step = info.width = width
        message.height = info.height = height

    if kind == "short":
        message.data = message.data[: len(message.data) // 2]
    elif kind == "step":
        message.step = message.width - 1
    elif kind == "encoding":
        message.encoding = "no such encoding"
    elif kind == "zero":
        message.width = message.height = message.step = 0
        message.data = array("B")
    elif kind == "huge":
        message.width = message.height = message.step = 100_000
    elif kind == "small":
        resized(64, 48)
    elif kind == "odd":
        resized(641, 479)
    elif kind == "large":
        resized(1920, 1080)
    elif kind == "black":
        message.data = array("B", bytes(len(message.data)))
    elif kind == "bad_info":
        info.k = [float("nan")] * 9


def main() -> int:
    import numpy as np
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import CameraInfo, Image

    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--life", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="picture to begin with")
    parser.add_argument("--pictures", type=Path, required=True, help="npy, uint8 (N, H, W)")
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    pictures = np.load(options.pictures, mmap_mode="r")
    count, height, width = pictures.shape

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    orders: collections.deque[str] = collections.deque()

    def listen() -> None:
        for line in sys.stdin:
            kind, times = line.split()
            orders.extend([kind] * int(times))
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("camera")
    images = node.create_publisher(Image, "image", qos_profile_sensor_data)
    infos = node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
    while images.get_subscription_count() == 0 and not stop.is_set():
        time.sleep(0.02)
    stop.wait(0.3)  # the subscriber has to know of this publisher too
    focal, number, place, due = 0.95 * width, 0, 0, time.monotonic()
    last = 0
    while not stop.is_set():
        due = max(due + 1.0 / options.rate, time.monotonic())
        stop.wait(max(0.0, due - time.monotonic()))
        kind = orders.popleft() if orders else "good"
        place += 1
        if kind == "silent":
            continue
        number += 1
        picture = (options.first + place) % count
        message = Image(height=height, width=width, step=width, encoding="mono8")
        message.data = array("B", pictures[picture].tobytes())
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
        info.k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
        spoilt(message, info, kind)
        now = last = max(time.time_ns(), last + 1)
        stamp = {"zero_stamp": 0, "ahead": now + HOUR, "behind": now - HOUR}.get(kind, now)
        message.header.frame_id = f"cam:{options.life}:{number}"
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        info.header = message.header
        infos.publish(info)
        images.publish(message)
        print(number, time.monotonic_ns(), kind, picture, flush=True)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
