"""Print the packages that pyproject.toml names, one a line, as pip reads them::

python3 tools/requirements.py              what a flight needs
python3 tools/requirements.py test docs    what these extras add
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirements(*extras: str) -> list[str]:
    """Return the base dependencies, or those of the extras where some are named.

    Raises:
        SystemExit: no such extra.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    known = project["optional-dependencies"]
    for name in extras:
        if name not in known:
            raise SystemExit(f"no extra '{name}' in {PROJECT}: one of {', '.join(known)}")
    if not extras:
        return list(project["dependencies"])
    return [line for name in extras for line in known[name]]


if __name__ == "__main__":
    print("\n".join(requirements(*sys.argv[1:])))
