"""Every line in docs/troubleshooting.md and docs/faults.md is one that the code can write."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from gps_denied_inference.engines import reasons
from gps_denied_inference.pipeline import accounting

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
OURS = TEXT.partition("## Lines of other programs")[0]
GAP = "\0"


def written(tree: ast.AST) -> list[str]:
    """Return every string of a module, docstrings left out, with GAP for what is filled in."""
    inside: set[int] = set()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inside.add(id(node.value))  # a docstring
        elif isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            found.append(
                "".join(p.value if isinstance(p, ast.Constant) else GAP for p in node.values)
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            found.append(node.value)
    return found


@functools.cache
def templates() -> list[str]:
    """Return what the code can write: the package, the launch files, the set-up scripts."""
    paths = [*(ROOT / "gps_denied_inference").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    found = {text for path in paths for text in written(ast.parse(path.read_text("utf-8")))}
    for name in ("bootstrap", "layout.sh"):
        shell = (ROOT / "tools" / name).read_text(encoding="utf-8")
        for said in re.findall(r'(?:fail|echo) "([^"]+)"', shell):
            found.add(re.sub(r"\$\{?\w+\}?", GAP, said))
    found.add(f"bootstrap: {GAP}")
    return sorted(found)


def letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


@functools.cache
def expressions() -> list[re.Pattern[str]]:
    """Return one pattern for every template of some length: fixed and filled-in parts in turn."""
    return [
        re.compile(
            "(.*?)".join(f"({re.escape(part)})" for part in template.split(GAP))
            + ("$" if template.endswith(GAP) else "")
        )
        for template in templates()
        if letters(template) >= 8 and " " in template
    ]


def assert_written(line: str) -> None:
    """Most of the line is fixed text of the code, and the rest is what the code fills in.

    In the line, ``...`` stands for anything; ``[word]`` at its end is a reason of the gate. A line
    may be made of several strings, one filled into another.
    """
    if re.fullmatch(r"\w+", line):
        assert line in templates(), f"no code has the word {line!r}"
        return
    for tag in re.findall(r" ?\[(\w+)\]$", line):
        assert tag in reasons.ALL, f"no reason {tag!r} in {line!r}"
    line = re.sub(r" ?\[\w+\]$", "", line)
    covered = set(range(len(line))) - {i for i, c in enumerate(line) if c.isalpha()}
    for expression in expressions():
        match = expression.search(line)
        if match:
            for group in range(1, expression.groups + 1, 2):  # the fixed parts
                covered.update(range(*match.span(group)))
    missed = "".join("_" if i in covered else c for i, c in enumerate(line))
    assert letters(missed) < 0.3 * max(letters(line), 1), f"nothing writes {missed!r} of {line!r}"


def lines() -> list[str]:
    cells = re.findall(r"^\| (`.+?) \| ", OURS, re.MULTILINE)
    return [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("line", lines())
def test_the_code_writes_it(line: str) -> None:
    assert_written(line)


def test_there_are_lines_to_check() -> None:
    assert len(lines()) > 40


@pytest.mark.parametrize(
    "line",
    [
        "configure faild: ...",
        "engine ... refused: there is no such engine",
        "[no_such_reason]",
        "the weights of '...' are nowhere in ...",
    ],
)
def test_the_check_finds_a_line_that_nobody_writes(line: str) -> None:
    with pytest.raises(AssertionError):
        assert_written(line)


def test_docstrings_do_not_count() -> None:
    tree = ast.parse('"""only a docstring"""\nraise E(f"size {n} px")\n')
    assert written(tree) == [f"size {GAP} px"]


def drop_reasons() -> set[str]:
    """Return the reasons under which the code counts a frame as dropped."""
    found = {value for name, value in vars(accounting).items() if name.isupper()}
    found = {value for value in found if isinstance(value, str)}
    for path in (ROOT / "gps_denied_inference").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "FrameError":
                given: list[ast.expr] = [*node.args[1:], *(word.value for word in node.keywords)]
                if not given:
                    found.add("malformed")  # FrameError's default
            elif name in ("dropped", "_drop", "_fail"):
                given = node.args[:1]
            else:
                continue
            for part in (part for argument in given for part in ast.walk(argument)):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    found.add(part.value)
    return found


def test_every_drop_reason_is_explained() -> None:
    table = OURS.partition("`drop_reasons` in `~/status`:")[2].partition("## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(explained) == len(set(explained))
    assert set(explained) == drop_reasons()


FAULTS = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in FAULTS.splitlines()
    if line.startswith("| ") and not line.startswith(("| fault", "| **"))
]


@functools.cache
def names_of_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "test").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_fault_has_its_line_and_its_test(row: list[str]) -> None:
    fault, does, seen, proof = row
    assert fault
    assert does
    assert_written(seen.strip("`"))
    assert proof.strip("`") in names_of_tests()


def test_every_part_has_its_faults() -> None:
    assert len(re.findall(r"^\| \*\*.+?\*\*", FAULTS, re.MULTILINE)) == 10
    assert len(ROWS) > 30
