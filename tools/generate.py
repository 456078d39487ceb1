"""Write what is made from the code: the parameter file, the tables of parameters in README.md and
docs/parameters.md, docs/messages.md, and the tree of the package in CONTRIBUTING.md::

    tools/with_env python tools/generate.py
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

from settings_pages import as_markdown, as_yaml

ROOT = Path(__file__).resolve().parent.parent
HEAD = "| parameter | type | default |"


def main() -> None:
    """Write every generated file in place."""
    (ROOT / "config" / "inference.yaml").write_text(as_yaml(), encoding="utf-8")
    for page in (ROOT / "README.md", ROOT / "docs" / "parameters.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith(HEAD))
        last = first
        while last < len(lines) and lines[last].startswith("|"):
            last += 1
        lines[first:last] = as_markdown().splitlines()
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = ROOT / "CONTRIBUTING.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("```text\n")
    tree = runpy.run_path(str(ROOT / "tools" / "tree_page.py"))["page"]()
    page.write_text(f"{before}```text\n{tree}```{rest.partition('```')[2]}", encoding="utf-8")
    script = [sys.executable, str(ROOT / "tools" / "messages_page.py")]
    page = subprocess.run(script, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    (ROOT / "docs" / "messages.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
