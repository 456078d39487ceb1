"""Every command in the documents exists: gdi, make, ros2, docker, scripts."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gps_denied_inference.cli.main import COMMANDS, build_parser
from gps_denied_inference.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    key=lambda path: path.name,
)
GDI = (
    ("gdi",),
    ("ros2", "run", "gps_denied_inference", "gdi"),
    ("python", "-m", "gps_denied_inference"),
    ("tools/with_env", "python", "-m", "gps_denied_inference"),
)
TRANSITIONS = {"configure", "activate", "deactivate", "cleanup", "shutdown"}


def blocks(text: str) -> Iterator[str]:
    """Yield the lines of code blocks, continued lines joined and comments left out."""
    fenced, pending = False, ""
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
            continue
        if not (fenced or line.startswith("    ")):
            continue
        line = pending + line.strip()
        if line.endswith("\\"):
            pending = line[:-1]
            continue
        pending = ""
        # Two spaces begin a remark, with or without a number sign.
        yield from re.split(r"\s{2,}|\s+#", line)[0].split(" && ")


def commands(text: str) -> list[list[str]]:
    """Return the words of every line in a code block that can be split like a shell's."""
    found = []
    for line in blocks(text):
        try:
            words = shlex.split(line)
        except ValueError:  # a drawing or Python
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


def check_gdi(words: list[str]) -> None:
    """Parse as the command line would; argparse ends the test with SystemExit if it refuses."""
    assert words[0] in COMMANDS, f"no command gdi {words[0]}"
    parser, _ = build_parser(words[0])
    try:
        parser.parse_args(words)
    except SystemExit as refusal:
        raise AssertionError(f"gdi {' '.join(words)} is refused") from refusal


def launch_arguments(name: str) -> set[str]:
    text = (ROOT / "launch" / name).read_text(encoding="utf-8")
    declared = re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', text)
    found = {*declared, *re.findall(r'^    "(\w+)": \(', text, re.MULTILINE)}
    for included in re.findall(r'"launch" / "(\w+\.launch\.py)"', text):
        found |= launch_arguments(included)  # its arguments are the whole launch's
    return found


def check(words: list[str]) -> bool:
    """Check one command line; False = not one of the kinds that this test knows."""
    for prefix in GDI:
        if tuple(words[: len(prefix)]) == prefix:
            check_gdi(words[len(prefix) :])
            return True
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if words[0] == "make":
        named = [word for word in words[1:] if "=" not in word]
        assert set(named) <= set(targets), f"make {named}"
    elif words[:3] == ["ros2", "launch", "gps_denied_inference"]:
        assert {w.partition(":=")[0] for w in words[4:]} <= launch_arguments(words[3]), words
    elif words[:3] == ["ros2", "run", "gps_denied_inference"]:
        assert (ROOT / "scripts" / words[3]).is_file(), words
    elif words[:3] == ["ros2", "lifecycle", "set"]:
        assert words[4] in TRANSITIONS, words
    elif words[:3] == ["ros2", "param", "set"]:
        {row.name: row for row in Settings.table()}[words[4]].check(
            {"true": True, "false": False}.get(words[5], words[5])
        )
    elif words[:2] == ["docker", "build"]:
        dockerfile = (ROOT / words[words.index("-f") + 1]).read_text(encoding="utf-8")
        for flag, value in itertools.pairwise(words):
            if flag == "--build-arg":
                assert re.search(rf"^ARG {value.partition('=')[0]}\b", dockerfile, re.MULTILINE)
    elif words[0].startswith(("tools/", ".ci/")):
        assert (ROOT / words[0]).is_file(), words
        if words[0] == "tools/with_env" and len(words) > 2 and words[2].endswith(".py"):
            assert (ROOT / words[2]).is_file(), words
    elif words[0] in ("python", "python3") and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), words
    else:
        return False
    return True


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_code_blocks_exist(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        check(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_gdi_commands_in_sentences_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for mention in re.findall(r"[`']gdi ([^`'\n]+)[`']", text):
        words = mention.split()
        assert words[0] in COMMANDS, mention
        parser, _ = build_parser(words[0])
        subparser = parser._subparsers._group_actions[0].choices[words[0]]  # type: ignore[union-attr,index]
        known = {option for action in subparser._actions for option in action.option_strings}
        nested = [action.choices for action in subparser._actions if action.choices]
        if words[0] in ("models", "cache") and len(words) > 1:
            assert any(words[1] in choices for choices in nested), mention
        else:
            assert {word for word in words if word.startswith("--")} <= known, mention


def test_the_documents_hold_commands_of_every_kind() -> None:
    everything = [words for path in DOCUMENTS for words in commands(path.read_text())]
    checked = [words for words in everything if check(words)]
    kinds = {"gdi", "make", "docker", "tools/with_env"} | {"ros2"}
    assert kinds <= {words[0] for words in checked}
    assert len(checked) > 40


@pytest.mark.parametrize(
    "line",
    [
        "gdi no_such_command",
        "gdi compile",
        "gdi compile xfeat --no-such-option",
        "ros2 run gps_denied_inference gdi cache lsit",
        "ros2 run gps_denied_inference no_such_executable",
        "ros2 launch gps_denied_inference inference.launch.py no_such_argument:=1",
        "ros2 lifecycle set /inference_node start",
        "make no_such_target",
        "docker build -f docker/Dockerfile.x86 --build-arg NO_SUCH=1 .",
        "python3 tools/no_such.py",
    ],
)
def test_the_check_finds_a_wrong_command(line: str) -> None:
    (words,) = commands(f"    {line}\n")
    with pytest.raises(AssertionError):
        check(words)
