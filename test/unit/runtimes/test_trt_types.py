"""mypy holds the calls into TensorRT against ``tensorrt-stubs``.

The published stubs carry no marker that mypy accepts and a few lines that are no Python, so they
are mended in a copy. What mypy then says of the stubs themselves does not matter, what it says of
our modules does.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("trt_builder.py", "trt_engine.py")
WRONG = ("attr-defined", "call-arg", "call-overload", "name-defined", "import-not-found")
"""What a call that the library does not have looks like to mypy."""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mypy", reason="mypy is not installed")
    try:
        files = importlib.metadata.files("tensorrt-stubs") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tensorrt-stubs is not installed")
    folder = tmp_path_factory.mktemp("stubs")
    for file in files:
        if file.suffix != ".pyi":
            continue
        lines = []
        for line in file.locate().read_text().splitlines():  # type: ignore[union-attr]
            if re.match(r"\s*def ", line):
                line = re.sub(r"\bin: ", "in_: ", line)
                line = line.replace("channel_axis: int)", "channel_axis: int = ...)")
            if "tensorrt_libs" not in line:
                lines.append(line)
        target = folder / str(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(lines) + "\n")
    return folder


def complaints(stubs: Path, *paths: Path) -> list[str]:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(stubs / "cache"), *map(str, paths)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(stubs)},
        capture_output=True,
        text=True,
    )
    names = {path.name for path in paths}
    return [
        line
        for line in done.stdout.splitlines()
        if Path(line.partition(":")[0]).name in names
        and any(line.endswith(f"[{code}]") for code in WRONG)
    ]


def test_every_call_into_tensorrt_is_in_the_stubs(stubs: Path) -> None:
    folder = ROOT / "gps_denied_inference" / "runtimes"
    assert complaints(stubs, *(folder / name for name in MODULES)) == []


def test_a_call_that_tensorrt_does_not_have_is_seen(stubs: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong_call.py"
    wrong.write_text(
        "import tensorrt_bindings.tensorrt as trt\n\n\n"
        "def use(context: trt.IExecutionContext, builder: trt.Builder) -> None:\n"
        "    context.execute_async_v9(0)\n"
        "    builder.create_network(0, 1, 2)\n"
    )
    found = complaints(stubs, wrong)
    assert any("execute_async_v9" in line for line in found), found
    assert len(found) == 2, found
