"""Frames whose place is known: tables of every kind, EXIF and XMP, and the priors made of them."""

from __future__ import annotations

import csv
import json
import math

import cv2
import numpy as np
import pytest
from memory_map import MemoryInfo
from PIL import Image

from gps_denied_inference.errors import ConfigurationError, FrameError
from gps_denied_inference.evaluation.frames import read_camera, read_frames
from gps_denied_inference.evaluation.geotags import read_geotags
from gps_denied_inference.evaluation.priors import PriorMaker, PriorOptions
from gps_denied_inference.pipeline.localization.prior import heading_and_gravity

INFO = MemoryInfo("m", "aa", (0.5,), 512)
"""A degree is 111,320 m both ways."""
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" {attributes}>{elements}
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def table(folder, rows):
    with open(folder / "frames.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def photograph(path, attributes="", elements="", lat=(24, 15, 43.68), lon=(120, 43, 12.7)):
    image = Image.new("L", (64, 48))
    exif = image.getexif()
    exif.get_ifd(0x8825).update({1: "S", 2: lat, 3: "E", 4: lon})
    exif.get_ifd(0x8769).update({0xA405: 24, 0x9003: "2024:05:01 10:00:00"})
    xmp = XMP.format(attributes=attributes, elements=elements).encode()
    image.save(path, exif=exif, xmp=xmp)
    return path


class TestTables:
    def test_image_centres_with_a_camera_that_flew_elsewhere(self, tmp_path):
        (record,) = read_frames(
            table(tmp_path, [{
                "frame": "a.jpg", "uav_lat_deg": "0.001", "uav_lon_deg": "0.002", "agl_m": "120",
                "flight_yaw_deg": "-30", "image_centre_lat_deg": "0.0011",
                "image_centre_lon_deg": "0.0022",
            }]),
            INFO,
        )  # fmt: skip
        assert record.axis == pytest.approx(complex(244.904, 122.452), abs=1e-3)
        assert record.camera == pytest.approx(complex(222.64, 111.32), abs=1e-3)
        assert record.heading == pytest.approx(math.radians(-30))
        assert (record.height, record.turn, record.stamp) == (120.0, None, None)
        assert record.path == tmp_path / "a.jpg"

    def test_a_pose_says_where_the_axis_meets_the_ground(self, tmp_path):
        (tmp_path / "images").mkdir()
        lean = math.radians(10.0)  # looks ahead to the north
        turn = {
            "r00": 1, "r01": 0, "r02": 0,
            "r10": 0, "r11": -math.cos(lean), "r12": math.sin(lean),
            "r20": 0, "r21": -math.sin(lean), "r22": -math.cos(lean),
        }  # fmt: skip
        row = {"frame": "a.jpg", "stamp_s": 7.5, "camera_x_m": 5, "camera_y_m": 6, "agl_m": 100}
        (record,) = read_frames(table(tmp_path, [row | turn]), INFO)
        assert record.camera == 5 + 6j
        assert record.axis == pytest.approx(5 + (6 + 100 * math.tan(lean)) * 1j)
        assert record.stamp == 7.5
        assert record.path == tmp_path / "images" / "a.jpg"

    def test_a_camera_over_the_middle_of_the_map_is_known(self, tmp_path):
        row = {"frame": "a.jpg", "camera_x_m": 0, "camera_y_m": 0, "lat_deg": "1", "lon_deg": "1"}
        (record,) = read_frames(table(tmp_path, [row]), INFO)
        assert record.camera == record.axis == 0j

    def test_what_is_empty_is_not_known(self, tmp_path):
        (record,) = read_frames(
            table(tmp_path, [{"frame": "a.jpg", "lat_deg": "0.001", "lon_deg": "0", "agl_m": ""}]),
            INFO,
        )
        assert record.height is None
        assert record.axis == record.camera == pytest.approx(111.32j)

    @pytest.mark.parametrize("value", ["high", "nan", "inf"])
    def test_what_is_no_number_is_refused(self, tmp_path, value):
        table(tmp_path, [{"frame": "a.jpg", "agl_m": value}])
        with pytest.raises(ConfigurationError, match="no number"):
            read_frames(tmp_path, INFO)

    def test_a_table_without_frames_is_refused(self, tmp_path):
        table(tmp_path, [{"image": "a.jpg"}])
        with pytest.raises(ConfigurationError, match="no column 'frame'"):
            read_frames(tmp_path, INFO)

    def test_a_folder_with_nothing_in_it_is_refused(self, tmp_path):
        with pytest.raises(ConfigurationError, match="holds no images"):
            read_frames(tmp_path, INFO)
        with pytest.raises(ConfigurationError, match="no frames at"):
            read_frames(tmp_path / "not_there", INFO)


class TestGeotags:
    def test_attributes_and_elements_of_xmp(self, tmp_path):
        as_attributes = photograph(
            tmp_path / "a.jpg",
            'drone-dji:RelativeAltitude="+118.40" drone-dji:GimbalYawDegree="-12.5" '
            'drone-dji:GimbalPitchDegree="-90.0" drone-dji:FlightYawDegree="3.0"',
        )
        as_elements = photograph(
            tmp_path / "b.jpg", "",
            "<drone-dji:RelativeAltitude>+118.40</drone-dji:RelativeAltitude>"
            "<drone-dji:FlightYawDegree>-12.5</drone-dji:FlightYawDegree>"
            "<drone-dji:GimbalPitchDegree>-90.0</drone-dji:GimbalPitchDegree>",
        )  # fmt: skip
        for path in (as_attributes, as_elements):
            tags = read_geotags(path)
            assert tags.lat == pytest.approx(-(24 + 15 / 60 + 43.68 / 3600))
            assert tags.lon == pytest.approx(120 + 43 / 60 + 12.7 / 3600)
            assert (tags.height, tags.yaw, tags.pitch) == (118.4, -12.5, -90.0)
            assert tags.focal == pytest.approx(24 / 36)
            assert tags.taken == "2024:05:01 10:00:00"

    def test_a_folder_of_photographs_is_a_set_of_frames(self, tmp_path):
        photograph(
            tmp_path / "b.jpg",
            'drone-dji:RelativeAltitude="100" drone-dji:GimbalYawDegree="90" '
            'drone-dji:GimbalPitchDegree="-80"',
        )
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
        plain, tagged = read_frames(tmp_path, INFO)
        assert (plain.axis, plain.height, plain.heading) == (None, None, None)
        assert tagged.focal == pytest.approx(24 / 36)
        assert tagged.axis - tagged.camera == pytest.approx(100 * math.tan(math.radians(10)))
        heading, gravity = heading_and_gravity(tagged.turn)
        assert heading == pytest.approx(math.radians(90))
        assert gravity == pytest.approx(
            [0.0, math.sin(math.radians(10)), math.cos(math.radians(10))]
        )

    def test_what_is_no_image_is_refused(self, tmp_path):
        (tmp_path / "a.jpg").write_text("none")
        with pytest.raises(FrameError, match=r"a\.jpg"):
            read_frames(tmp_path, INFO)


class TestCamera:
    def test_values_with_and_without_distortion(self, tmp_path):
        path = tmp_path / "camera.json"
        values = {"fx_px": 800, "cx_px": 480, "cy_px": 270, "width": 960, "height": 540}
        path.write_text(json.dumps(values))
        camera = read_camera(path)
        assert camera.matrix[0, 0] == camera.matrix[1, 1] == 800
        path.write_text(json.dumps(values | {"d": [0.1, 0, 0, 0], "fy_px": 790}))
        assert read_camera(path).distortion.tolist() == [0.1, 0, 0, 0]
        assert read_camera(path).matrix[1, 1] == 790

    @pytest.mark.parametrize("text", ["", "{}", '{"fx_px": "wide"}', "[]"])
    def test_what_is_no_camera_is_refused(self, tmp_path, text):
        path = tmp_path / "camera.json"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"camera\.json"):
            read_camera(path)


class TestPriors:
    def record(self, tmp_path):
        row = {
            "frame": "a.jpg",
            "lat_deg": "0.001",
            "lon_deg": "0",
            "agl_m": "100",
            "yaw_deg": "45",
        }
        return read_frames(table(tmp_path, [row]), INFO)[0]

    def test_errors_are_as_large_as_said(self, tmp_path):
        record, maker = self.record(tmp_path), PriorMaker(PriorOptions(75.0, 0.15, 10.0))
        priors = [maker.of(record) for _ in range(400)]
        east = np.array([p.position[0] for p in priors])
        assert east.std() == pytest.approx(75.0, rel=0.15)
        assert np.std([math.log(p.height / 100.0) for p in priors]) == pytest.approx(0.15, rel=0.15)
        turns = [math.degrees(p.heading) - 45.0 for p in priors]
        assert np.std(turns) == pytest.approx(10.0, rel=0.15)
        assert max(map(abs, turns)) <= 25.0 + 1e-9

    def test_what_is_left_out_is_not_known_and_changes_nothing_else(self, tmp_path):
        record = self.record(tmp_path)
        all_known = PriorMaker(PriorOptions(75.0, 0.15, 10.0)).of(record)
        less = PriorMaker(PriorOptions(None, 0.15, None)).of(record)
        assert less.position is None
        assert less.heading is None
        assert less.height == all_known.height
