"""Print the tree of the package, two levels deep, with the first line of each docstring::

python3 tools/tree_page.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 110


def summary(path: Path) -> str:
    """Return the first sentence of a module's docstring, of a folder's ``__init__``."""
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix != ".py" or not source.is_file():
        return {"py.typed": "Annotations are complete", "data": "Files that it needs"}[path.name]
    doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s|::", paragraph)[0].rstrip(".:").replace("``", "")


def children(folder: Path) -> list[Path]:
    """Return what is shown of a folder, subfolders after files."""
    shown = [
        path
        for path in folder.iterdir()
        if path.name not in ("__init__.py", "__pycache__") and not path.name.startswith(".")
    ]
    return sorted(shown, key=lambda path: (path.is_dir(), path.name))


def page(root: Path = ROOT / "gps_denied_inference", depth: int = 2) -> str:
    """Return the tree as text."""
    lines = [f"{root.name}/"]

    def add(folder: Path, prefix: str, level: int) -> None:
        entries = children(folder)
        for entry in entries:
            last = entry is entries[-1]
            name = (
                f"{prefix}{'└── ' if last else '├── '}{entry.name}{'/' if entry.is_dir() else ''}"
            )
            said = summary(entry)
            line = f"{name:<36} {said}".rstrip()
            lines.append(line if len(line) <= WIDTH else line[: WIDTH - 3].rstrip() + "...")
            if entry.is_dir() and level < depth:
                add(entry, prefix + ("    " if last else "│   "), level + 1)

    add(root, "", 1)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
