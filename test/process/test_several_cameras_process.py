"""Two cameras, one node, one engine, over real DDS."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node_process import Driver, driven
from rcl_interfaces.msg import ParameterType, ParameterValue
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.msg import FeatureArray, MatchArray

HEIGHT, WIDTH = 256, 320
NAMES = ("left", "right")
TOLERANCE = 1.0  # s
PARAMETERS = {
    "camera_names": list(NAMES),
    "camera_tolerance": 0.05,
    "task": "track",
    "runtime": "onnxruntime",
    "device": "cpu",
    "threads": 1,
    "image_width": WIDTH,
    "image_height": HEIGHT,
    "max_keypoints": 150,
    "warmup_iterations": 1,
    "thermal_source": "none",
    "stall_timeout": 3600.0,
    "infer_timeout": 60.0,
    "status_rate": 5.0,
}


class Rig:
    """Two cameras and who listens to what the node makes of them."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        node, name = driver.node, driver.target.full_name
        self.images = {
            camera: node.create_publisher(Image, f"{camera}/image", qos_profile_sensor_data)
            for camera in NAMES
        }
        self.infos = {
            camera: node.create_publisher(CameraInfo, f"{camera}/camera_info", 10)
            for camera in NAMES
        }
        self.heard: dict[tuple[str, str], list] = defaultdict(list)
        self.order: list[tuple[str, int]] = []
        for camera in NAMES:
            for kind, topic in (
                (FeatureArray, "features"),
                (MatchArray, "matches"),
                (PointCloud, "feature_cloud"),
            ):
                node.create_subscription(
                    kind, f"{name}/{camera}/{topic}", partial(self._hear, camera, topic), 50
                )
        self.diagnostics: dict[str, DiagnosticArray] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnosed, 50)

    def _hear(self, camera: str, topic: str, message: object) -> None:
        self.heard[camera, topic].append(message)
        if topic == "features":
            self.order.append((camera, message.header.stamp.nanosec))

    def _diagnosed(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = status

    def bring_up(self) -> None:
        driver = self.driver
        assert driver.configure()
        assert driver.transition(3)  # activate
        for camera in NAMES:
            driver.wait_until(
                lambda camera=camera: (
                    self.images[camera].get_subscription_count() == 1
                    and self.infos[camera].get_subscription_count() == 1
                ),
                f"the subscriptions of {camera}",
            )
            driver.wait_until(
                lambda camera=camera: (
                    driver.node.count_publishers(f"{driver.target.full_name}/{camera}/features")
                    == 1
                ),
                f"the features of {camera}",
            )

    def send(self, camera: str, pixels: np.ndarray, number: int) -> None:
        """Publish frame ``number`` of a camera, its stamp a little later for the right one."""
        message = Image(height=HEIGHT, width=WIDTH, encoding="mono8", step=WIDTH)
        message.header.frame_id = f"{camera}_optical"
        message.header.stamp.sec = 100
        message.header.stamp.nanosec = stamp_of(camera, number)
        message.data = np.ascontiguousarray(pixels).tobytes()
        info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob")
        info.header = message.header
        focal = 300.0 if camera == "left" else 200.0
        info.k = [focal, 0.0, WIDTH / 2, 0.0, focal, HEIGHT / 2, 0.0, 0.0, 1.0]
        info.d = [0.0] * 5
        self.infos[camera].publish(info)
        self.images[camera].publish(message)

    def account(self, camera: str):
        """Return the camera's part of the newest status; None before there is one."""
        for status in reversed(self.driver.statuses):
            for one in status.cameras:
                if one.name == camera:
                    return one
        return None


def stamp_of(camera: str, number: int) -> int:
    return number * 40_000_000 + (1_000_000 if camera == "right" else 0)


@contextmanager
def rig(folder: Path, **changes):
    with driven(folder, parameters=PARAMETERS | changes) as (process, driver):
        yield process, Rig(driver)


def frames(seed: int):
    """Successive grey frames of a simulated flight."""
    for frame in itertools.islice(SimulatedFlight(60, WIDTH, HEIGHT, seed=seed), 20):
        image = frame.image if frame.image.ndim == 2 else frame.image[:, :, 1]
        yield np.ascontiguousarray(image)


def test_each_camera_has_its_own_outputs_and_its_own_books(tmp_path: Path) -> None:
    with rig(tmp_path) as (process, cameras):
        driver = cameras.driver
        cameras.bring_up()
        flights = {"left": frames(1), "right": frames(2)}
        sent = {"left": 0, "right": 0}
        for number in range(1, 13):
            present = ("left",) if number in (5, 6, 7) else NAMES  # the right one drops out
            for camera in present:
                pixels = next(flights[camera])
                if (camera, number) == ("right", 9):
                    pixels = pixels[: HEIGHT // 2]  # fewer bytes than its header says
                cameras.send(camera, pixels, number)
                sent[camera] += 1
            wanted = {"left": number, "right": sent["right"] - (number >= 9)}
            for camera, count in wanted.items():
                driver.wait_until(
                    lambda camera=camera, count=count: (
                        len(cameras.heard[camera, "features"]) >= count
                    ),
                    f"answer {count} of {camera}",
                )
        for camera in NAMES:
            numbers = [n for n in range(1, 13) if camera == "left" or n not in (5, 6, 7, 9)]
            features = cameras.heard[camera, "features"]
            assert [f.header.stamp.nanosec for f in features] == [
                stamp_of(camera, n) for n in numbers
            ]
            assert {f.header.frame_id for f in features} == {f"{camera}_optical"}
            # Tracks go on, each camera's own.
            assert sum(age > 0 for age in features[3].track_ages) > 40
            clouds = cameras.heard[camera, "feature_cloud"]
            assert clouds
            assert {c.header.frame_id for c in clouds} == {f"{camera}_optical"}
            assert {m.header.frame_id for m in cameras.heard[camera, "matches"]} == {
                f"{camera}_optical"
            }
        # The same pixel lies elsewhere on the plane of another lens.
        for camera, focal in (("left", 300.0), ("right", 200.0)):
            cloud = cameras.heard[camera, "feature_cloud"][0]
            u = np.array(cloud.channels[1].values)
            x = np.array([point.x for point in cloud.points])
            np.testing.assert_allclose(u, focal * x + WIDTH / 2, atol=0.05)
        driver.wait_until(
            lambda: (
                cameras.account("left").frames_out == 12
                and cameras.account("right").frames_out == 8
            ),
            "the books of both",
        )
        left, right = cameras.account("left"), cameras.account("right")
        assert (left.frames_in, left.frames_dropped) == (12, 0)
        assert (right.frames_in, list(right.drop_reasons)) == (9, ["short_data"])
        assert (left.stamp_gaps, right.stamp_gaps) == (0, 0)
        status = driver.statuses[-1]
        assert (status.frames_in, status.frames_out, status.frames_dropped) == (21, 20, 1)
        assert "camera 'right': frame dropped (short_data)" in process.output
        assert not driver.features, "features without the camera's name"
        for camera in NAMES:
            task = f"/inference_node: frames of {camera}"
            driver.wait_until(lambda task=task: task in cameras.diagnostics, task)
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0


@pytest.mark.alone
def test_frames_of_one_instant_are_answered_together(tmp_path: Path) -> None:
    """In one forward pass: its wait begins with the first of them and ends with the last."""
    with rig(tmp_path, engine_batch=2, camera_tolerance=TOLERANCE, task="extract") as (
        process,
        cameras,
    ):
        driver = cameras.driver
        cameras.bring_up()
        flights = {"left": frames(1), "right": frames(2)}
        for number in range(1, 5):
            cameras.send("left", next(flights["left"]), number)
            time.sleep(0.3)  # well within the tolerance: the left one's frame waits
            assert len(cameras.order) == 2 * (number - 1)
            cameras.send("right", next(flights["right"]), number)
            driver.wait_until(lambda number=number: len(cameras.order) == 2 * number, "both")
        # One camera ends: the other waits for it once, and no more.
        for number in range(5, 9):
            begin = time.monotonic()
            cameras.send("left", next(flights["left"]), number)
            driver.wait_until(
                lambda number=number: len(cameras.heard["left", "features"]) == number, "left"
            )
            took = time.monotonic() - begin
            assert (took >= TOLERANCE) == (number == 5), (number, took)
        assert driver.shutdown()
        assert process.wait_for_exit(5) == 0


def test_names_and_tasks_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with rig(tmp_path, runtime="fake", task="localize", map_file="m.map") as (_, cameras):
        driver = cameras.driver
        assert not driver.configure()
        driver.wait_until(lambda: "camera_names" in driver.statuses[-1].detail, "the reason")
        assert "'localize'" in driver.statuses[-1].detail
        for names, taken in ((["a", "a"], True), (["down"], True)):
            value = ParameterValue(
                type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=names
            )
            assert driver.set_parameter("camera_names", value)[0] == taken
            if names == ["a", "a"]:
                assert not driver.configure()
                driver.wait_until(
                    lambda: "each of them once" in driver.statuses[-1].detail, "the reason"
                )
        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="left")
        taken, reason = driver.set_parameter("camera_names", text)
        assert not taken
        assert "string_array" in reason
