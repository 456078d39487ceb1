from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gps_denied_inference.cli import doctor
from gps_denied_inference.cli.main import main
from gps_denied_inference.runtimes.gpus import Gpu, GpuSurvey
from gps_denied_inference.runtimes.machine import Machine

NO_GPU = GpuSurvey(reason="there is no NVIDIA driver here")
ORIN = GpuSurvey((Gpu(0, "Orin", "8.7", 64 << 30),), "12.6")


def machine(gpus: GpuSurvey, **modules: Any) -> Machine:
    def find(name: str) -> Any:
        if name not in modules:
            raise ImportError(f"No module named '{name}'")
        return modules[name]

    return Machine(gpus, find)


def ort(*providers: str) -> Any:
    return SimpleNamespace(__version__="1.30", get_available_providers=lambda: list(providers))


def rows(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["runtime"], row["device"]): row for row in report["runtimes"]}


def test_what_does_not_work_says_why_and_what_mends_it() -> None:
    report = doctor.examine(machine(ORIN, onnxruntime=ort("CPUExecutionProvider")))
    found = rows(report)
    assert found["onnxruntime", "cpu"]["works"]
    for row in found.values():
        assert row["works"] or (row["reason"] and row["remedy"]), row
    gpu = found["onnxruntime", "cuda"]
    assert "without its CUDA provider" in gpu["reason"]
    assert "onnxruntime-gpu" in gpu["remedy"]
    text = doctor.render(report)
    assert "cuda:0 Orin, compute capability 8.7, 64.0 GiB" in text
    assert f"mend: {gpu['remedy']}" in text
    assert report["auto"]["device"] == "cpu"


def test_a_machine_without_a_gpu_says_so_once_for_each_runtime() -> None:
    report = doctor.examine(machine(NO_GPU, onnxruntime=ort("CPUExecutionProvider")))
    assert "gpu       none: there is no NVIDIA driver here" in doctor.render(report)
    assert "no NVIDIA driver" in rows(report)["tensorrt", "cuda"]["reason"]


def test_where_nothing_works_auto_says_it_too() -> None:
    report = doctor.examine(machine(NO_GPU))
    assert "no runtime" in report["auto"]["error"]
    assert "auto      nothing" in doctor.render(report)


def test_exit_code_and_json_on_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "doctor.json"
    code = main(["doctor", "--json", str(target)])
    report = json.loads(target.read_text())
    works = any(row["works"] for row in report["runtimes"] if row["runtime"] != "fake")
    assert code == (0 if works and not report["missing_base"] else 1)
    assert "runtimes" in capsys.readouterr().out


def test_exit_code_where_nothing_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "Machine", lambda: machine(NO_GPU))
    assert main(["doctor"]) == 1


def test_run_really_runs_and_reads_back() -> None:
    report = doctor.examine(machine(NO_GPU), try_runtimes=True)
    ran = rows(report)["fake", "cpu"]["ran"]
    assert ran["provider"] == "FakeProvider"
    assert ran["p50_ms"] > 0


def test_a_runtime_that_fails_when_run_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from gps_denied_inference import runtimes
    from gps_denied_inference.errors import RuntimeUnavailableError

    def fail(name: str, **_: Any) -> Any:
        raise RuntimeUnavailableError("it broke", "mend it so")

    monkeypatch.setattr(runtimes, "create_runtime", fail)
    row = rows(doctor.examine(machine(NO_GPU), try_runtimes=True))["fake", "cpu"]
    assert not row["works"]
    assert row["remedy"] == "mend it so"


def test_stubs_are_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_stubs").mkdir()
    (tmp_path / "only_stubs" / "__init__.pyi").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor.package_version("only_stubs") == ""
    assert doctor.package_version("numpy")


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    report = doctor.examine(machine(NO_GPU))
    assert not report["cache"]["writable"]
    assert "set XDG_CACHE_HOME" in doctor.render(report)
