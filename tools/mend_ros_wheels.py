#!/usr/bin/env python3
"""Mend the CMake exports of the registry's ROS wheels in one prefix, and make it sourceable.

The wheels were built in a container whose paths some of their CMake files still name:
``/opt/python/cp3...`` include folders and ``/usr/lib64/libtinyxml2.so``. Neither exists here, and
CMake refuses targets that name them. This blanks them and writes ``local_setup.sh``,
``local_setup.bash`` and ``setup.bash``, which the wheels lack and colcon looks for in an underlay.

Running it again changes nothing. Usage: mend_ros_wheels.py PREFIX
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CONTAINER_PYTHON = re.compile(r'/opt/python/cp3[^";\n]*;?')
CONTAINER_LIBRARY = re.compile(r"/usr/lib64/libtinyxml2\.so;?")

LOCAL_SETUP = """\
# Puts this environment on the paths by which ROS 2 tools find packages.
case ":${{AMENT_PREFIX_PATH:-}}:" in
  *:"{prefix}":*) ;;
  *) AMENT_PREFIX_PATH="{prefix}${{AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}}" ;;
esac
export AMENT_PREFIX_PATH
ROS_VERSION=2
export ROS_VERSION
"""


def mend(text: str) -> str:
    """Return the text of a CMake file without the container's paths."""
    return CONTAINER_LIBRARY.sub("", CONTAINER_PYTHON.sub("", text))


def mend_prefix(prefix: Path) -> int:
    """Mend every CMake export under ``prefix``; return how many files were changed."""
    changed = 0
    for path in sorted(prefix.glob("share/*/cmake/*.cmake")):
        before = path.read_text(encoding="utf-8")
        after = mend(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    for name in ("local_setup.sh", "local_setup.bash", "setup.bash"):
        (prefix / name).write_text(LOCAL_SETUP.format(prefix=prefix), encoding="utf-8")
    return changed


def main() -> int:
    """Mend the prefix named on the command line."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], "share").is_dir():
        print(
            "usage: mend_ros_wheels.py PREFIX   (an environment with ROS wheels)", file=sys.stderr
        )
        return 2
    changed = mend_prefix(Path(sys.argv[1]).absolute())
    print(f"mended {changed} CMake exports of the ROS wheels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
