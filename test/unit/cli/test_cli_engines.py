"""gdi compile, gate, cache and sign, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conformance_cases import find_weights

from gps_denied_inference.cli.main import main
from gps_denied_inference.engines.cache import EngineCache
from gps_denied_inference.engines.layout import PREPARED
from gps_denied_inference.engines.manifest import manifest_path
from gps_denied_inference.runtimes.contract import BuildConfig, Model
from gps_denied_inference.runtimes.fake import FakeRuntime

SMALL = ["--width", "64", "--height", "64", "--keypoints", "20"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def engine(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    report = tmp_path / "engine.json"
    command = ["compile", "xfeat", "--runtime", "fake", *SMALL, "--cache", str(cache)]
    assert main([*command, "--json", str(report)]) == 0
    capsys.readouterr()
    return Path(json.loads(report.read_text())["engine"])


def test_compile_builds_then_finds(cache: Path, tmp_path: Path, capsys) -> None:
    report = tmp_path / "report.json"
    command = ["compile", "xfeat", "--runtime", "fake", *SMALL, "--cache", str(cache), "--load"]
    command += ["--json", str(report)]
    built = []
    for extra in ([], [], ["--force"]):
        assert main(command + extra) == 0
        content = json.loads(report.read_text())
        built.append(content["built"])
        assert Path(content["engine"]).is_file()
        assert content["manifest"]["config"]["max_keypoints"] == 20
        assert content["readback"]["provider"] == "FakeProvider"
    assert built == [True, False, True]
    assert "FakeProvider" in capsys.readouterr().out


def test_compiled_engine_is_the_one_that_a_node_in_flight_loads(cache: Path, capsys) -> None:
    from gps_denied_inference.errors import EngineRejectedError
    from gps_denied_inference.session import InferenceSession
    from gps_denied_inference.settings import Settings

    settings = Settings(
        runtime="onnxruntime",
        device="cpu",
        image_width=64,
        image_height=64,
        max_keypoints=20,
        engine_policy="load_only",
        engine_cache_directory=str(cache),
        threads=1,
    )
    session = InferenceSession(settings)
    with pytest.raises(EngineRejectedError, match="gdi compile"):
        session.open()
    command = ["compile", "xfeat", "--runtime", "onnxruntime", "--device", "cpu", *SMALL]
    assert main([*command, "--cache", str(cache)]) == 0
    session.open()
    assert session.readback.provider == "CPUExecutionProvider"
    session.close()


def test_compile_refuses_what_the_node_refuses(capsys) -> None:
    assert main(["compile", "xfeat", "--runtime", "fake", "--keypoints", "0"]) == 1
    assert "'max_keypoints' = 0" in capsys.readouterr().err
    assert main(["compile", "xfeat", "--runtime", "fake", "--option", "odd"]) == 1
    assert "NAME=VALUE" in capsys.readouterr().err
    assert main(["compile", "no_such_model", "--runtime", "fake"]) == 1
    assert "no_such_model" in capsys.readouterr().err


def test_gate_accepts_file_and_folder(engine: Path, tmp_path: Path, capsys) -> None:
    report = tmp_path / "gate.json"
    for path in (engine, engine.parent):
        assert main(["gate", str(path), "--json", str(report)]) == 0
        assert "accepted" in capsys.readouterr().out
        content = json.loads(report.read_text())
        assert content["accepted"] is True
        assert content["machine"]["runtime_id"] == "fake"


def test_gate_refuses_and_says_why(engine: Path, tmp_path: Path, capsys) -> None:
    report = tmp_path / "gate.json"
    engine.write_bytes(engine.read_bytes() + b"\n")
    assert main(["gate", str(engine), "--json", str(report)]) == 1
    assert "reasons: size" in capsys.readouterr().out
    manifest_path(engine).unlink()
    assert main(["gate", str(engine), "--json", str(report)]) == 1
    assert json.loads(report.read_text())["reasons"] == ["missing_manifest"]
    assert main(["gate", str(tmp_path / "absent"), "--json", str(report)]) == 1
    assert json.loads(report.read_text())["reasons"] == ["missing_artifact"]


def test_gate_on_a_machine_without_that_runtime(engine: Path, monkeypatch, capsys) -> None:

    from gps_denied_inference.runtimes import RuntimeRow, table

    row = RuntimeRow("fake", "no_such_library:Runtime", "get it")
    monkeypatch.setitem(table._registered, "fake", row)
    assert main(["gate", str(engine)]) == 1
    out = capsys.readouterr().out
    assert "reasons: runtime" in out
    assert "note: runtime 'fake' cannot be used" in out
    assert "get it" in out


def test_keys_signing_and_the_gate(engine: Path, tmp_path: Path, capsys) -> None:
    key, public = tmp_path / "flight.key", tmp_path / "flight.key.pub"
    assert main(["sign", "--new-key", str(key)]) == 0
    assert main(["sign", "--new-key", str(key)]) == 1
    assert "exists already" in capsys.readouterr().err
    gate = ["gate", str(engine), "--require-signature", "--public-key", str(public)]
    assert main(gate) == 1
    assert "reasons: signature" in capsys.readouterr().out
    assert main(["sign", str(engine.parent), "--key", str(key)]) == 0
    assert main(gate) == 0
    assert main(["sign", "--key", str(key)]) == 1
    with pytest.raises(SystemExit):
        main(["sign", str(engine)])


def test_cache_lists_and_prunes(engine: Path, cache: Path, tmp_path: Path, capsys) -> None:
    report = tmp_path / "cache.json"
    where = ["--cache", str(cache), "--json", str(report)]
    assert main(["cache", "list", *where]) == 0
    assert "xfeat for fake" in capsys.readouterr().out
    assert json.loads(report.read_text())["engines"][0]["engine"] == str(engine)
    assert main(["cache", "prune", "--max-age", "1h", "--max-size", "1G", *where]) == 0
    assert json.loads(report.read_text())["removed"] == []
    (engine.parent / PREPARED).unlink()  # as one that a node built
    old = time.time() - 7200
    os.utime(engine, (old, old))
    assert main(["cache", "prune", "--max-age", "1h", *where]) == 0
    assert not engine.parent.exists()
    assert main(["cache", "list", *where]) == 0
    assert "0 engines" in capsys.readouterr().out


def test_prune_in_a_real_process_spares_all_that_is_not_its_own(
    engine: Path, cache: Path, tmp_path: Path
) -> None:
    """One root with a prepared, a signed and a plain engine, foreign folders and a locked one."""
    gdi = [sys.executable, "-m", "gps_denied_inference"]
    for size in ("128", "160"):
        runtime = FakeRuntime(cache=EngineCache(cache))
        model = Model("xfeat", "xfeat", "extractor", 64)
        runtime.compile_engine(model, BuildConfig(height=64, width=int(size)))
    plain, signed = sorted(path for path in cache.glob("xfeat-*") if (path / "engine.json").exists()
                           and path != engine.parent)  # fmt: skip
    key = tmp_path / "flight.key"
    for words in (["--new-key", str(key)], [str(signed), "--key", str(key)]):
        subprocess.run([*gdi, "sign", *words], check=True, timeout=60, capture_output=True)
    foreign = cache / "flights"
    foreign.mkdir()
    (foreign / "log.bin").write_bytes(b"x" * 1000)
    locked = cache / "locked"
    locked.mkdir(mode=0o000)
    try:
        for bounds in (["--all"], ["--max-age", "0s"]):
            done = subprocess.run(
                [*gdi, "cache", "prune", *bounds, "--cache", str(cache)],
                check=False, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert f"kept {engine.parent.name}: prepared with 'gdi compile'" in done.stdout
            assert f"kept {signed.name}: signed" in done.stdout
    finally:
        locked.chmod(0o700)
    assert not plain.exists()
    assert engine.is_file()
    assert (signed / "engine.json").is_file()
    assert (foreign / "log.bin").read_bytes() == b"x" * 1000
    assert locked.is_dir()
    bare = tmp_path / "data"
    (bare / "x").mkdir(parents=True)
    done = subprocess.run(
        [*gdi, "cache", "prune", "--all", "--cache", str(bare)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not marked as an engine cache" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in bare.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "words", [["--max-age", "30"], ["--max-age", "xd"], ["--max-size", "-1"], ["--max-size", "1T"]]
)
def test_senseless_bounds_are_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["cache", "prune", *words])
    assert exit_info.value.code == 2


def test_engine_for_another_computer_s_gpu(cache: Path, tmp_path: Path, capsys) -> None:
    """Built where there is no GPU, checked there, and found by the aircraft's own settings."""
    pytest.importorskip("tensorrt_rtx", reason="building for another GPU needs tensorrt_rtx")
    from gps_denied_inference.runtimes.gpus import survey

    if survey().gpus:
        pytest.skip("this computer has a GPU, and an engine for another one is refused here")
    report = tmp_path / "report.json"
    command = ["compile", "xfeat", "--runtime", "tensorrt", *SMALL, "--cache", str(cache)]
    command += ["--json", str(report)]
    assert main(command) == 1
    assert "no NVIDIA driver" in capsys.readouterr().err
    assert main([*command, "--compute-capability", "8.9"]) == 0
    content = json.loads(report.read_text())
    manifest = content["manifest"]
    assert (manifest["compute_capability"], manifest["precision"]) == ("8.9", "fp16")
    assert manifest["config"]["options"] == {}
    engine = Path(content["engine"])
    assert main(["gate", str(engine)]) == 0
    assert "it does not load here" in capsys.readouterr().out
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)
    assert main(["gate", str(engine)]) == 1
    assert "reasons: hash" in capsys.readouterr().out


def test_auto_is_full_precision_for_a_model_that_has_no_other(
    cache: Path, tmp_path: Path, capsys
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="building for another GPU needs tensorrt_rtx")
    report = tmp_path / "report.json"
    command = ["compile", "aliked-t16", "--runtime", "tensorrt", *SMALL, "--cache", str(cache)]
    command += ["--compute-capability", "8.9", "--json", str(report)]
    assert main(command) == 0
    assert json.loads(report.read_text())["manifest"]["precision"] == "fp32"
    assert main([*command, "--precision", "fp16"]) == 1
    assert "'fp32' for ALIKED" in capsys.readouterr().err


def test_only_tensorrt_builds_for_another_computer(capsys) -> None:
    command = ["compile", "xfeat", "--runtime", "fake", "--compute-capability", "8.9"]
    assert main(command) == 1
    assert "'tensorrt' with --compute-capability" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["fake", "onnxruntime", "pytorch"])
def test_options_that_nothing_reads_are_refused_by_name(cache: Path, capsys, runtime: str) -> None:
    command = ["compile", "lighterglue", "--runtime", runtime, "--device", "cpu"]
    if runtime == "pytorch":
        pytest.importorskip("torch", reason="torch is not installed")
        weights = find_weights("lighterglue")
        if weights is None:
            pytest.skip("no published weights: run 'gdi models fetch lighterglue'")
        command += ["--weights", str(weights)]
    command += [*SMALL, "--cache", str(cache), "--option"]
    assert main([*command, "prunning=off"]) == 1
    said = capsys.readouterr().err
    assert "'option prunning' = 'off'" in said
    assert "match_threshold, " in said
    assert not list(cache.glob("*"))
    assert main([*command, "match_threshold=0.9"]) == 0


def test_a_threshold_of_one_is_within_the_one_bound_of_settings_and_builder(
    cache: Path, capsys
) -> None:
    command = ["compile", "xfeat", "--runtime", "onnxruntime", "--device", "cpu", *SMALL]
    command += ["--cache", str(cache), "--threshold"]
    assert main([*command, "1.0"]) == 0
    assert main([*command, "1.01"]) == 1
    assert "'detection_threshold' = 1.01" in capsys.readouterr().err
