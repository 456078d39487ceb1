"""Real UAV frames through real nodes: tracks, clouds, overlays, and matches to a reference."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from camera_process import CameraProcess
from node_process import LONG_TESTS, Driver, NodeProcess, driven, image_message
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud

from gps_denied_inference.demo.simulation import SimulatedFlight
from gps_denied_inference.msg import FeatureArray, MatchArray
from gps_denied_inference.pipeline.geometry import project

WIDTH, HEIGHT = 640, 480
SMALL = {
    "runtime": "onnxruntime",
    "device": "cpu",
    "threads": 1,
    "image_width": 320,
    "image_height": 256,
    "max_keypoints": 300,
    "thermal_source": "none",
}


@pytest.fixture
def flight(shared_data: Path) -> Path:
    """Folder of nadir frames in the order of the flight."""
    return shared_data / "caliterra" / "images"


def vga_frames(folder: Path, count: int) -> list[np.ndarray[Any, Any]]:
    files = sorted(folder.glob("*.jpg"))[:count]
    assert len(files) == count
    frames = []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert image is not None, file
        frames.append(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return frames


def listen(driver: Driver, kind: type, topic: str, depth: Any = 100) -> list[Any]:
    """Collect what the node publishes on ``~/topic``."""
    heard: list[Any] = []
    driver.node.create_subscription(kind, f"{driver.target.full_name}/{topic}", heard.append, depth)
    return heard


def send_until_answered(driver: Driver, image: np.ndarray[Any, Any], stamp: int) -> FeatureArray:
    """Send one frame, again if it was lost on the way; return its answer."""
    message = image_message(image, stamp)
    count = len(driver.features)
    end = time.monotonic() + 30
    while len(driver.features) == count:
        assert time.monotonic() < end, driver.target.output
        driver.camera.publish(message)
        pause = time.monotonic() + 2.0
        while len(driver.features) == count and time.monotonic() < pause:
            time.sleep(0.005)
    answer = driver.features[-1]
    assert (answer.header.stamp.sec, answer.header.stamp.nanosec) == divmod(stamp, 1_000_000_000)
    return answer


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def check_tracks(answers: list[FeatureArray]) -> int:
    """Check ids and ages over successive answers; return the greatest age."""
    last_age: dict[int, int] = {}
    highest = 0
    previous: FeatureArray | None = None
    for answer in answers:
        assert len(answer.track_ids) == len(answer.track_ages) == answer.count
        ids = list(answer.track_ids)
        if previous is not None and answer.keypoints == previous.keypoints:
            # The same picture over again is no new frame of the tracks.
            assert answer.track_ids == previous.track_ids
            assert answer.track_ages == previous.track_ages
            continue
        previous = answer
        assert len(set(ids)) == len(ids), "one id for two features of a frame"
        for identifier, age in zip(ids, answer.track_ages, strict=True):
            if identifier in last_age:
                assert age > last_age[identifier], "an age that does not grow"
            else:
                assert age == 0, "a new id with an age"
                assert identifier > highest, "an id given twice"
            last_age[identifier] = age
        highest = max([highest, *ids])
    return max(last_age.values())


def calibration(stamp: int) -> CameraInfo:
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.header.frame_id = "camera"
    message.k = [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
    message.d = [-0.1, 0.01, 0.0, 0.0, 0.0]
    return message


def activate(process: NodeProcess, driver: Driver) -> None:
    assert driver.configure(), process.output
    assert driver.activate(), process.output


def test_tracks_cloud_and_overlay_of_a_real_flight(tmp_path: Path, flight: Path) -> None:
    frames = vga_frames(flight, 12)
    frames += frames[-2::-1]  # there and back
    with driven(tmp_path, parameters={**SMALL, "task": "track"}) as (process, driver):
        matches = listen(driver, MatchArray, "matches")
        clouds = listen(driver, PointCloud, "feature_cloud")
        infos = driver.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        activate(process, driver)
        period = 100_000_000  # ns; frames of a survey lie far apart, tracks live 1 s without one
        now = 1_000_000_000_000
        answers = []

        def fly(count: int) -> None:
            nonlocal now
            for _ in range(count):
                now += period
                answers.append(send_until_answered(driver, frames[len(answers)], now))

        fly(6)
        driver.wait_until(lambda: "no feature_cloud" in process.output, "the line about the cloud")
        line = next(x for x in process.output.splitlines() if "no feature_cloud" in x)
        assert "camera_info" in line
        assert not clouds, "a cloud without a calibration"

        driver.wait_until(
            lambda: infos.get_subscription_count() > 0, "the camera_info subscription"
        )
        end = time.monotonic() + 20
        while not clouds:
            assert time.monotonic() < end, process.output
            infos.publish(calibration(now))
            fly(1)
        cloud = clouds[0]
        assert [channel.name for channel in cloud.channels] == ["id", "u", "v", "vx", "vy"]
        sizes = {len(cloud.points), *(len(channel.values) for channel in cloud.channels)}
        assert len(sizes) == 1, "points and channels of different lengths"
        assert len(cloud.points) > 0
        assert all(point.z == 1.0 for point in cloud.points)
        assert stamp_of(cloud) in {stamp_of(answer) for answer in answers}

        overlays: list[Image] = []
        drawn = driver.node.create_subscription(
            Image,
            f"{driver.target.full_name}/debug_image",
            overlays.append,
            qos_profile_sensor_data,
        )
        end = time.monotonic() + 20
        while not overlays:
            assert time.monotonic() < end, process.output
            fly(1)
        assert (overlays[0].width, overlays[0].height) == (WIDTH, HEIGHT)
        assert overlays[0].encoding == "rgb8"
        driver.node.destroy_subscription(drawn)

        driver.wait_until(lambda: len(matches) > 2, "matches to a key frame")
        assert check_tracks(answers) >= 2
        stamps = {stamp_of(answer) for answer in answers}
        for match in matches:
            reference = match.reference_header.stamp
            earlier = reference.sec * 1_000_000_000 + reference.nanosec
            assert match.reference == "keyframe"
            assert earlier in stamps
            assert earlier < stamp_of(match)
            assert len(match.query_points) == len(match.reference_points) == 2 * match.count
        assert max(match.inlier_count for match in matches) >= 30


def test_tracks_go_on_in_frames_that_the_network_does_not_see(tmp_path: Path) -> None:
    """Ids stay on their points over frames detected and followed in turn; ~/status shows both."""
    simulated = SimulatedFlight(frames=16)
    parameters = {**SMALL, "task": "track", "detection_interval": 2}
    with driven(tmp_path, parameters=parameters) as (process, driver):
        activate(process, driver)
        answers = [
            send_until_answered(
                driver, cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), frame.stamp_ns
            )
            for frame in simulated
        ]
        check_tracks(answers)
        status = driver.wait_for_status(
            lambda status: status.frames_out >= len(answers), "every frame in the status"
        )
        assert {"follow", "extract", "infer", "track"} <= set(status.stages)
    first: dict[int, tuple[int, Any]] = {}
    errors, later = [], [0] * len(answers)
    for index, answer in enumerate(answers):
        points = np.asarray(answer.keypoints, np.float64).reshape(-1, 2)
        for track, point in zip(answer.track_ids, points, strict=True):
            start, origin = first.setdefault(track, (index, point))
            if start < index:
                later[index] += 1
                truth = project(simulated.motion(start, index), origin[None])[0]
                errors.append(float(np.linalg.norm(truth - point)))
    assert min(later[1:]) > 100
    # All of a followed frame's points go on from the frame before.
    assert all(later[index] == answers[index].count for index in range(1, len(answers), 2))
    assert np.mean(np.array(errors) <= 2.0) >= 0.95


def test_the_reference_is_switched_in_flight(tmp_path: Path, flight: Path) -> None:
    frames = vga_frames(flight, 12)
    with driven(tmp_path, parameters={**SMALL, "task": "match"}) as (process, driver):
        matches = listen(driver, MatchArray, "matches")
        references = driver.node.create_publisher(Image, "reference/image", qos_profile_sensor_data)
        activate(process, driver)
        driver.wait_until(lambda: references.get_subscription_count() > 0, "the reference's reader")
        now = 1_000_000_000_000
        send_until_answered(driver, frames[0], now)
        assert not matches, "matches without a reference"

        def match_against(reference: np.ndarray[Any, Any], name: str) -> MatchArray:
            """Send the reference, then frame 0 until it is matched against that reference."""
            nonlocal now
            end = time.monotonic() + 30
            while True:
                assert time.monotonic() < end, process.output
                references.publish(image_message(reference, 5, frame_id=name))
                now += 33_000_000
                send_until_answered(driver, frames[0], now)
                pause = time.monotonic() + 1.0
                while time.monotonic() < pause:  # the match follows its features at once
                    if matches and stamp_of(matches[-1]) == now:
                        break
                    time.sleep(0.005)
                if (
                    matches
                    and stamp_of(matches[-1]) == now
                    and matches[-1].reference_header.frame_id == name
                ):
                    return matches[-1]

        same = match_against(frames[0], "first")
        assert same.reference == "topic"
        assert same.model_type == MatchArray.MODEL_HOMOGRAPHY
        assert same.inlier_count >= 200, "a frame does not match itself"
        homography = np.asarray(same.model).reshape(3, 3)
        np.testing.assert_allclose(homography / homography[2, 2], np.eye(3), atol=0.05)

        other = match_against(frames[11], "elsewhere")
        assert other.inlier_count < 0.5 * same.inlier_count, "the old reference is still matched"
        again = match_against(frames[0], "back")
        assert again.inlier_count == same.inlier_count


def test_a_reference_that_cannot_be_read_leaves_the_old_one(tmp_path: Path, flight: Path) -> None:
    (frame,) = vga_frames(flight, 1)
    with driven(tmp_path, parameters={**SMALL, "task": "match"}) as (process, driver):
        matches = listen(driver, MatchArray, "matches")
        references = driver.node.create_publisher(Image, "reference/image", qos_profile_sensor_data)
        activate(process, driver)
        driver.wait_until(lambda: references.get_subscription_count() > 0, "the reference's reader")
        now = 1_000_000_000_000
        end = time.monotonic() + 30
        while not matches:
            assert time.monotonic() < end, process.output
            references.publish(image_message(frame, 5, frame_id="good"))
            now += 33_000_000
            send_until_answered(driver, frame, now)
        bad = image_message(frame, 6, frame_id="bad")
        bad.step = 3
        while "reference image refused" not in process.output:
            assert time.monotonic() < end, process.output
            references.publish(bad)
            now += 33_000_000
            send_until_answered(driver, frame, now)
        count = len(matches)
        now += 33_000_000
        send_until_answered(driver, frame, now)
        driver.wait_until(lambda: len(matches) > count, "a match after the bad reference")
        assert matches[-1].reference_header.frame_id == "good"


@pytest.mark.slow
def test_two_streams_at_30_hz_are_accounted_for(tmp_path: Path, flight: Path) -> None:
    """30 Hz on the first stream, a second one beside it: no frame leaves the books."""
    seconds, rate = 60 if LONG_TESTS else 6, 30.0
    beside = 100 if LONG_TESTS else 50
    tracked = {**SMALL, "task": "track", "threads": 1}
    side = {**SMALL, "runtime": "fake", "image_width": 160, "image_height": 128}
    with (
        driven(tmp_path, "/down", tracked) as (process, down),
        driven(tmp_path, "/front", side) as (front_process, front),
    ):
        overlays = f"{down.target.full_name}/debug_image"
        activate(process, down)
        activate(front_process, front)
        with (
            CameraProcess(
                tmp_path,
                namespace="/down",
                rate=rate,
                frames=round(seconds * rate),
                width=WIDTH,
                height=HEIGHT,
                images=flight,
            ) as camera,
            CameraProcess(
                tmp_path, namespace="/front", rate=10.0, frames=beside, width=WIDTH, height=HEIGHT
            ) as second,
        ):
            assert second.result(180)["sent"] == beside
            sent = camera.result(3 * seconds + 60)["sent"]
            assert sent == round(seconds * rate)
        for driver, expected in ((down, sent), (front, beside)):
            status = driver.wait_for_accounts(expected)
            drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
            p95 = dict(zip(status.stages, status.latency_p95, strict=True))["end_to_end"]
            print(
                f"{driver.target.full_name}: {expected} sent, {status.frames_out} answered, "
                f"{drops}, p95 end to end {1e3 * p95:.1f} ms"
            )
            assert set(drops) <= {"superseded", "lost_in_transport"}
        check_tracks(down.features)
        assert down.node.count_subscribers(overlays) == 0
        assert "Traceback" not in process.output + front_process.output


@pytest.mark.alone
def test_a_25_hz_camera_is_tracked_at_full_size(tmp_path: Path) -> None:
    """VGA, K = 1000, on a CPU. A quiet machine keeps up; any other accounts for each frame."""
    rate, frames = 25.0, round((60 if LONG_TESTS else 5) * 25.0)
    (tmp_path / "images").mkdir()
    for frame in SimulatedFlight(frames=60):
        cv2.imwrite(str(tmp_path / "images" / f"{frame.index:03}.png"), frame.image[:, :, ::-1])
    parameters = {
        **SMALL,
        "task": "track",
        "detection_interval": 4,
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "max_keypoints": 1000,
        "threads": 2,
    }
    with driven(tmp_path, parameters=parameters) as (process, driver):
        assert driver.configure(), process.output
        with CameraProcess(
            tmp_path,
            rate=rate,
            frames=frames,
            width=WIDTH,
            height=HEIGHT,
            images=tmp_path / "images",
        ) as camera:
            assert driver.activate()
            sent = camera.result(frames / rate * 2 + 60)["sent"]
        status = driver.wait_for_accounts(sent)
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        p50 = dict(zip(status.stages, (1e3 * t for t in status.latency_p50), strict=True))
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in p50.items())
        print(f"{sent} sent at {rate} Hz, {status.frames_out} answered, {drops}; p50 ms: {stages}")
        assert sent == frames
        assert set(drops) <= {"superseded", "lost_in_transport"}
        assert check_tracks(driver.features) >= 5
        if LONG_TESTS:
            assert status.frames_out >= 0.99 * sent
