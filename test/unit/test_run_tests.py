"""What make test prints last: the counts of both of its runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import os, pytest

def test_side_by_side():
    assert os.environ["OMP_NUM_THREADS"] == "1" and "PYTEST_XDIST_WORKER" in os.environ

@pytest.mark.alone
def test_alone():
    assert "PYTEST_XDIST_WORKER" not in os.environ

def test_left_out():
    pytest.skip("never")
"""


@pytest.fixture(scope="module")
def run_tests() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "tools" / "run_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            "5 failed, 1602 passed, 418 skipped, 2 warnings in 716.10s (0:11:56)",
            {"failed": 5, "passed": 1602, "skipped": 418, "warnings": 2},
        ),
        (
            "=== \x1b[32m\x1b[1m3 passed\x1b[0m, 1 error in 0.10s ===",
            {"passed": 3, "failed": 1},
        ),
        ("2 failed, 3 passed, 1 error in 1.00s", {"failed": 3, "passed": 3}),
        ("3 frames, 2 answered in 0.1s?", None),
        ("FAILED test/unit/test_views.py - 3 passed in 1.0s", None),
    ],
)
def test_the_closing_line_is_read(
    run_tests: ModuleType, line: str, found: dict[str, int] | None
) -> None:
    counted = run_tests.counts(line)
    assert counted == (None if found is None else Counter(found))


def project(folder: Path, tests: str) -> Path:
    (folder / "test").mkdir()
    (folder / "test" / "test_it.py").write_text(tests, encoding="utf-8")
    (folder / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  alone: measures time\n", encoding="utf-8"
    )
    return folder


def ran(folder: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "OMP_NUM"))}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run_tests.py"), *arguments],
        cwd=folder,
        env={**env, "GDI_TEST_WORKERS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_both_runs_are_summed_and_what_measures_time_runs_alone(tmp_path: Path) -> None:
    code, lines = ran(project(tmp_path, TESTS))
    assert (code, lines[-1]) == (0, "2 passed, 0 failed, 1 skipped"), "\n".join(lines)


@pytest.mark.parametrize("broken", ["test_side_by_side", "test_alone"])
def test_a_failure_in_either_run_fails(tmp_path: Path, broken: str) -> None:
    code, lines = ran(
        project(tmp_path, TESTS.replace(f"{broken}():", f"{broken}():\n    assert 0\n"))
    )
    assert (code, lines[-1]) == (1, "1 passed, 1 failed, 1 skipped"), "\n".join(lines)


def test_what_is_chosen_runs_in_one_process(tmp_path: Path) -> None:
    code, lines = ran(project(tmp_path, TESTS), "-q", "-k", "test_alone")
    assert code == 0
    assert lines[-1].startswith("1 passed, 2 deselected in "), lines[-1]
