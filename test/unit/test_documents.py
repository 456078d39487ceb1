"""What is written down twice agrees: messages, executables, launch arguments, the version."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from settings_pages import as_markdown

ROOT = Path(__file__).resolve().parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_message_is_built_and_in_the_readme() -> None:
    cmake, readme = text("CMakeLists.txt"), text("README.md")
    for path in (ROOT / "msg").glob("*.msg"):
        assert f"msg/{path.name}" in cmake
        assert f"(msg/{path.name})" in readme


def test_every_executable_is_installed() -> None:
    cmake = text("CMakeLists.txt")
    for path in (ROOT / "scripts").iterdir():
        assert f"scripts/{path.name}" in cmake
        assert path.stat().st_mode & 0o100, f"{path} is not executable"


def test_every_launch_argument_is_in_the_readme() -> None:
    readme = text("README.md")
    names = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text("launch/inference.launch.py"))
    assert len(names) > 8
    for name in names:
        assert f"`{name}`" in readme, name


def test_the_parameter_page_holds_the_table() -> None:
    assert as_markdown() in text("docs/parameters.md")


def test_the_message_page_is_made_from_the_messages() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "messages_page.py"))["page"]()
    assert made == text("docs/messages.md"), "python3 tools/messages_page.py > docs/messages.md"


def test_the_tree_in_contributing_is_that_of_the_package() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "tree_page.py"))["page"]()
    assert f"```text\n{made}```" in text("CONTRIBUTING.md"), (
        "tools/with_env python tools/generate.py"
    )
    modules = [line for line in made.splitlines() if ".py" in line]
    assert len(modules) > 100
    assert all(re.search(r"\.py(\.typed)? +\S", line) for line in modules), "a module says nothing"


def test_the_glossary_is_in_use() -> None:
    glossary = text("CONTRIBUTING.md").partition("## Words")[2].partition("## ")[0]
    words = re.findall(r"^\| ([a-z ]+) \|", glossary, re.M)
    assert len(words[1:]) >= 10
    sources = "".join(
        path.read_text(encoding="utf-8").lower()
        for path in (ROOT / "gps_denied_inference").rglob("*.py")
    )
    for word in words[1:]:
        assert re.search(rf"\b{word.replace(' ', '[ _]?')}s?\b", sources), word


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": (\w+\.md)$", text("mkdocs.yml"), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def python_blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text(name), re.MULTILINE | re.DOTALL)


def test_python_in_the_pages_compiles_and_its_imports_exist() -> None:
    blocks = [
        b for path in (ROOT / "docs").glob("*.md") for b in python_blocks(f"docs/{path.name}")
    ]
    assert len(blocks) >= 3
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = str(node.module)
            if module.startswith("gps_denied_inference") and ".ros" not in module:
                source = ROOT / module.replace(".", "/")
                file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
                words = set(re.findall(r"\w+", file.read_text(encoding="utf-8")))
                inside = {path.stem for path in source.glob("*.py")}
                assert {alias.name for alias in node.names} <= words | inside, module


def test_the_registration_in_the_page_works() -> None:
    check = (
        "\nfrom gps_denied_inference.models import default_registry, zoo"
        "\nassert zoo.resolve('mynet').descriptor_dim == 128"
        "\nassert default_registry.get('mynet').factory == 'mine.net:load_module'"
    )
    block = python_blocks("docs/adding_a_model.md")[0]
    result = subprocess.run(
        [sys.executable, "-c", block + check], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text(document)):
        if "://" not in target:
            assert (ROOT / target).exists(), f"{document} links to {target}"


def test_version_is_the_same_everywhere() -> None:
    package = re.search(r"<version>(.*)</version>", text("package.xml"))
    project = re.search(r'^version = "(.*)"$', text("pyproject.toml"), re.MULTILINE)
    assert package is not None
    assert project is not None
    assert package[1] == project[1]


def test_every_scenario_has_its_tests_in_both_layers() -> None:
    table = text("CONTRIBUTING.md").partition("## Scenarios of operation")[2].partition("## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 13
    for scenario, *cells in rows:
        for layer, cell in zip(("launch", "process"), cells, strict=True):
            names = re.findall(r"`(\w+)`", cell)
            assert names, f"{scenario}: nothing in test/{layer}"
            sources = {path.stem: path.read_text() for path in (ROOT / "test" / layer).glob("*.py")}
            for name in names:
                there = name in sources or any(
                    re.search(rf"(def|class) {name}\b|\"{name}\": ", code)
                    for code in sources.values()
                )
                assert there, f"{scenario}: {name} is not in test/{layer}"
