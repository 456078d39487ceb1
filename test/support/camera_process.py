"""A camera as a process of its own: sends numbered frames at a steady rate over real DDS.

A process, since Fast DDS reads its profile once per process and a camera has its own interpreter.
Run by :class:`CameraProcess`; as a script it waits for subscribers, sends, and prints one JSON line
``{"sent": ..., "late": ..., "seconds": ...}`` when it is done or asked to end (SIGINT).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

CHANNELS = {"mono8": 1, "bgr8": 3, "rgb8": 3}


class CameraProcess:
    """Starts a camera; frame n carries the stamp ``first stamp + n / rate``.

    Args:
        folder: for its log.
        namespace: as the node's; it publishes ``image`` there.
        rate: Hz.
        frames: how many to send.
        width, height: px, of made-up frames or what ``images`` are resized to.
        encoding: "mono8", "bgr8" or "rgb8".
        images: folder of image files, sent in the order of their names, forwards and backwards.
        environment: over this process's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: float,
        frames: int,
        width: int,
        height: int,
        namespace: str = "",
        encoding: str = "mono8",
        images: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        label = namespace.strip("/") or "root"
        self.log_file = folder / f"camera_{label}.{time.monotonic_ns()}.log"
        command = [sys.executable, __file__, "--rate", str(rate), "--frames", str(frames)]
        command += ["--width", str(width), "--height", str(height), "--encoding", encoding]
        command += ["--images", str(images)] if images else []
        command += ["--ros-args", "-r", f"__ns:={namespace or '/'}"]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )

    def result(self, limit: float) -> dict[str, Any]:
        """Wait for the camera to end; return what it says it sent."""
        try:
            out, _ = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the camera still runs after {limit} s: {self.log_file.read_text()}"
            ) from None
        lines = out.decode().strip().splitlines()
        assert lines, f"the camera said nothing: {self.log_file.read_text()}"
        return dict(json.loads(lines[-1]))

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


def main() -> int:
    import cv2
    import numpy as np
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image

    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--encoding", choices=sorted(CHANNELS), required=True)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    size = (options.width, options.height)

    pictures = []
    if options.images:
        color = cv2.IMREAD_GRAYSCALE if options.encoding == "mono8" else cv2.IMREAD_COLOR
        for file in sorted(options.images.iterdir()):
            picture = cv2.imread(str(file), color)
            if picture is not None:
                pictures.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        # There and back again, so that the last frame is followed by its neighbour.
        pictures += pictures[-2:0:-1]
    else:
        rng = np.random.default_rng(7)
        coarse = rng.integers(0, 256, (options.height // 8 + 8, options.width // 8 + 8), np.uint8)
        big = np.kron(coarse, np.ones((8, 8), np.uint8))
        for shift in range(0, 48, 3):
            picture = big[shift : shift + options.height, shift : shift + options.width]
            if CHANNELS[options.encoding] == 3:
                picture = np.repeat(picture[..., None], 3, axis=2)
            pictures.append(np.ascontiguousarray(picture))

    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
    messages = []
    for picture in pictures:
        message = Image(height=options.height, width=options.width, encoding=options.encoding)
        message.step = options.width * CHANNELS[options.encoding]
        message.header.frame_id = "camera"
        message.data = array("B", picture.tobytes())
        messages.append(message)

    while publisher.get_subscription_count() == 0 and not stop.is_set():
        time.sleep(0.02)
    time.sleep(0.5)  # the subscriber has to know of this publisher too, which it cannot be asked
    first = time.time_ns()
    begin = time.monotonic()
    sent = late = 0
    while sent < options.frames and not stop.is_set():
        pause = begin + sent / options.rate - time.monotonic()
        if pause > 0:
            stop.wait(pause)
        elif pause < -1.0 / options.rate:
            late += 1
        message = messages[sent % len(messages)]
        stamp = first + round(sent * 1e9 / options.rate)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        publisher.publish(message)
        sent += 1
    seconds = time.monotonic() - begin
    print(json.dumps({"sent": sent, "late": late, "seconds": round(seconds, 2)}), flush=True)
    stop.wait(1.0)  # what was sent last has to get out
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
