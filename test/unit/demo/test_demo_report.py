"""report.json, report.html and the pictures; and what makes a demo fail."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from gps_denied_inference.cli.demo import _print_summary
from gps_denied_inference.demo.flight import Flight, NodeStatus
from gps_denied_inference.demo.frame import Frame
from gps_denied_inference.demo.pictures import draw_features, draw_matches
from gps_denied_inference.demo.report import MapPart, build_report, render_html, write_report
from gps_denied_inference.demo.score import Pair, Score
from gps_denied_inference.errors import FrameError, StorageError
from gps_denied_inference.pipeline.features import Features
from gps_denied_inference.pipeline.matcher import Matches

STATUS = NodeStatus(
    runtime="onnxruntime",
    provider="CPUExecutionProvider",
    device="cpu",
    precision="fp32",
    model="xfeat",
    model_sha256="ab" * 32,
    frames_in=10,
    frames_out=8,
    drops={"superseded": 2},
    stages={"infer": (0.02, 0.03), "end_to_end": (0.025, 0.04)},
)
FLIGHT = Flight(10, 8, (0.030,) * 7 + (0.050,), STATUS, 0, 1.0, 2.0)


class Source:
    kind = "test"
    name = "<flight & more>"
    note = ""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.refused: dict[str, FrameError] = {}

    def __iter__(self):
        return iter(())

    def move(self, start: int, end: int, points):
        return points.astype(np.float64)

    def surfaces(self, index: int, points):
        return np.zeros(len(points), np.intp)


def scored(good: int = 9, bad: int = 1) -> Score:
    count = good + bad
    points = np.random.default_rng(0).uniform(20, 60, (count, 2)).astype(np.float32)
    first = Features(
        points, np.ones(count, np.float32), np.eye(count, 64, dtype=np.float32), 80, 70, "xfeat", ""
    )
    moved = points.copy()
    moved[:bad] += 9
    score = Score(Source())
    score.add(0, first)
    score.add(1, replace(first, keypoints=moved))
    return score


def frames() -> dict[int, Frame]:
    return {
        0: Frame(0, 0, np.full((70, 80, 3), 90, np.uint8), "a"),
        1: Frame(1, 1, np.full((70, 80), 90, np.uint8), "b"),
    }


def test_the_fields_that_others_read() -> None:
    report = build_report(Source(), FLIGHT, scored())
    assert report["frames"] == {
        "published": 10,
        "answered": 8,
        "dropped": 2,
        "drop_reasons": {"superseded": 2},
        "unaccounted": 0,
        "unreadable": 0,
        "unreadable_reasons": {},
    }
    assert report["latency_ms"]["end_to_end"]["p50"] == pytest.approx(30.0)
    assert report["latency_ms"]["end_to_end"]["p95"] == pytest.approx(43.0)
    assert report["latency_ms"]["infer"] == {"p50": 20.0, "p95": 30.0}
    assert report["latency_ms"]["in_node"] == {"p50": 25.0, "p95": 40.0}
    runtime = report["runtime"]
    assert [runtime[key] for key in ("name", "provider", "device", "precision")] == [
        "onnxruntime",
        "CPUExecutionProvider",
        "cpu",
        "fp32",
    ]
    assert report["model"]["name"] == "xfeat"
    assert report["model"]["sha256"] == "ab" * 32
    assert report["matches"]["agreeing_share"] == 0.9
    assert report["failures"] == []


@pytest.mark.parametrize(
    ("flight", "score", "line"),
    [
        (replace(FLIGHT, published=11), scored(), "1 of 11 published frames were neither"),
        (replace(FLIGHT, answered=9), scored(), "-1 of 10 published frames were neither"),
        (replace(FLIGHT, exit_code=-9), scored(), "exit code -9"),
        (FLIGHT, scored(6, 4), "60.0% of the matches agree"),
    ],
)
def test_what_makes_a_demo_fail(flight: Flight, score: Score, line: str) -> None:
    (failure,) = build_report(Source(), flight, score)["failures"]
    assert line in failure


def test_nothing_answered_is_a_failure_even_when_all_is_counted() -> None:
    status = replace(STATUS, drops={"malformed": 10}, stages={})
    report = build_report(Source(), Flight(10, 0, (), status, 0, 1.0, 2.0), Score(Source()))
    assert report["failures"] == ["none of the 10 published frames was answered"]


def test_images_that_were_left_out_are_counted() -> None:
    source = Source()
    source.refused = {"a.jpg": FrameError("torn", "corrupt"), "b.jpg": FrameError("?", "corrupt")}
    source.notes = ["it has no metadata.yaml"]
    report = build_report(source, FLIGHT, scored())
    assert report["frames"]["unreadable"] == 2
    assert report["frames"]["unreadable_reasons"] == {"corrupt": 2}
    assert report["source"]["note"] == "it has no metadata.yaml"
    assert report["failures"] == []
    nothing = Flight(0, 0, (), replace(STATUS, drops={}), 0, 1.0, 2.0)
    report = build_report(source, nothing, Score(source))
    assert report["failures"] == ["none of the source's 2 images can be read"]


def test_what_the_node_found_stands_in_the_report() -> None:
    line = "the last 30 frames show fewer than 20 features (so in 3 of 9 statuses)"
    report = build_report(Source(), replace(FLIGHT, findings=(line,)), scored())
    assert report["findings"] == [line]
    assert report["failures"] == []
    assert line in render_html(report, {}, [])


def test_one_frame_has_no_matches_and_that_is_said(capsys) -> None:
    one = Flight(1, 1, (0.03,), replace(STATUS, drops={}), 0, 1.0, 2.0)
    score = Score(Source())
    score.add(0, Features(*(np.zeros((0, 2), np.float32),) * 3, 80, 70, "xfeat", ""))
    _print_summary(build_report(Source(), one, score))
    printed = capsys.readouterr().out
    assert "matches: none, since no two successive frames were answered" in printed
    assert "nan" not in printed


def test_all_is_written_and_the_page_needs_no_other_file(tmp_path: Path) -> None:
    score = scored()
    report = build_report(Source(), FLIGHT, score)
    written = write_report(tmp_path / "out", report, score, frames())
    assert sorted(path.name for path in written) == [
        "features.png",
        "matches.png",
        "report.html",
        "report.json",
    ]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["frames"]["answered"] == 8
    assert cv2.imread(str(tmp_path / "out" / "features.png")).shape == (70, 80, 3)
    matches = cv2.imread(str(tmp_path / "out" / "matches.png")).astype(int)
    assert matches.shape[0] == 70
    assert matches.shape[1] > 160
    green, red = matches[..., 1] - matches[..., 2], matches[..., 2] - matches[..., 1]
    assert (green > 60).any(), "matches that agree"
    assert (red > 60).any(), "and one that does not"

    class References(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attributes):
            self.found += [value for name, value in attributes if name in ("src", "href")]

    page = (tmp_path / "out" / "report.html").read_text()
    References().feed(page)
    assert len(References.found) == 2
    assert all(reference.startswith("data:image/png;base64,") for reference in References.found)
    assert "&lt;flight &amp; more&gt;" in page


def test_what_the_flight_over_the_map_gave_is_part_of_the_report(tmp_path: Path) -> None:
    score, report = scored(), build_report(Source(), FLIGHT, scored())
    part = MapPart({"fixes": 7}, ["a fix is 900 m off"], "", b"png")
    written = write_report(tmp_path, report, score, frames(), part)
    assert tmp_path / "localization.png" in written
    said = json.loads((tmp_path / "report.json").read_text())
    assert said["localization"] == {"fixes": 7}
    assert said["failures"] == ["a fix is 900 m off"]
    assert "a fix is 900 m off" in (tmp_path / "report.html").read_text()


def test_without_answers_the_report_is_written_without_pictures(tmp_path: Path) -> None:
    score = Score(Source())
    report = build_report(Source(), Flight(3, 0, (), NodeStatus(), 0, 1.0, 2.0), score)
    written = write_report(tmp_path, report, score, {})
    assert [path.name for path in written] == ["report.json", "report.html"]
    assert json.loads(written[0].read_text())["latency_ms"]["end_to_end"]["p50"] is None
    assert "not measured" in written[1].read_text()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    score = scored()
    with pytest.raises(StorageError, match="cannot write"):
        write_report(tmp_path / "out", build_report(Source(), FLIGHT, score), score, frames())


def test_large_frames_are_pictured_smaller_with_marks_in_place() -> None:
    image = np.zeros((1000, 1920), np.uint8)
    point = np.array([[1000.0, 500.0]], np.float32)
    one = np.ones(1, np.float32)
    features = Features(point, one, np.eye(1, 64, dtype=np.float32), 1920, 1000, "xfeat", "")
    index = np.zeros(1, np.int32)
    matches = Matches(index, index, one, point, point)
    pair = Pair(0, features, features, matches, np.ones(1, np.bool_))
    drawn = draw_features(image, pair)
    assert drawn.shape == (500, 960, 3)
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert abs(rows.mean() - 249.75) < 0.6
    assert abs(columns.mean() - 499.75) < 0.6
    line = draw_matches(image, image, pair)
    _, columns = np.nonzero((line[..., 1] > 100) & (line[..., 0] < 200))
    assert abs(columns.min() - 499.75) < 2
    assert abs(columns.max() - (499.75 + 960 + 12)) < 2
